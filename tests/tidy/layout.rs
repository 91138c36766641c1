//! Rules about how the parts of the project fit: packages, modules, fuzz targets, goldens and
//! documents. As in `text`, pure functions over the list of files; what cargo knows of a package
//! arrives as a value.

use std::collections::{BTreeSet, HashMap};

use crate::{Finding, SourceFile};

/// Largest file kept in the tree, in bytes.
const MAX_FILE_LEN: u64 = 256 << 10;

/// Who may depend on whom, of ours: `cli -> core -> {repo, chunker}`, and the test packages on
/// whatever they test. A package that is not listed may depend on none.
const ARROWS: [(&str, &[&str]); 7] = [
    ("strongroom-chunker", &[]),
    ("strongroom-repo", &[]),
    (
        "strongroom-core",
        &["strongroom-chunker", "strongroom-repo"],
    ),
    (
        "strongroom",
        &["strongroom-chunker", "strongroom-core", "strongroom-repo"],
    ),
    (
        "strongroom-tests",
        &["strongroom-chunker", "strongroom-core", "strongroom-repo"],
    ),
    (
        "strongroom-benches",
        &[
            "strongroom-chunker",
            "strongroom-core",
            "strongroom-repo",
            "strongroom-tests",
        ],
    ),
    (
        "strongroom-fuzz",
        &["strongroom-chunker", "strongroom-core", "strongroom-repo"],
    ),
];

/// What the rules need to know of a package.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Names of all dependencies, of every kind.
    pub(crate) dependencies: Vec<String>,
    /// The first files of its targets, relative to the root.
    pub(crate) roots: Vec<String>,
}

pub(crate) fn large_files(tree: &[SourceFile]) -> Vec<Finding> {
    tree.iter()
        .filter(|file| file.len > MAX_FILE_LEN)
        .map(|file| {
            finding(
                &file.path,
                format!("{} bytes; at most {MAX_FILE_LEN}", file.len),
            )
        })
        .collect()
}

pub(crate) fn forbidden_arrows(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let rule = ARROWS.iter().find(|(name, _)| *name == package.name);
        let allowed = rule.map_or(&[] as &[&str], |(_, allowed)| allowed);
        let ours = package
            .dependencies
            .iter()
            .filter(|name| name.starts_with("strongroom"));
        for dependency in ours.filter(|name| !allowed.contains(&name.as_str())) {
            findings.push(finding(
                &package.name,
                format!("must not depend on {dependency}"),
            ));
        }
    }
    findings
}

pub(crate) fn lintless_packages(tree: &[SourceFile]) -> Vec<Finding> {
    tree.iter()
        .filter(|file| file.path.ends_with("/Cargo.toml") && !file.path.starts_with("fuzz/"))
        .filter(|file| !file.text.contains("[lints]\nworkspace = true"))
        .map(|file| finding(&file.path, "does not take the workspace's lints"))
        .collect()
}

/// Rust files that no target of any package reaches through `mod` items.
pub(crate) fn unreached_files(tree: &[SourceFile], packages: &[Package]) -> Vec<Finding> {
    let files: HashMap<&str, &str> = tree
        .iter()
        .map(|file| (file.path.as_str(), file.text.as_str()))
        .collect();
    let mut reached = BTreeSet::new();
    let roots = packages.iter().flat_map(|package| &package.roots);
    let mut open: Vec<(String, bool)> = roots.map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(text) = files.get(path.as_str()) else {
            continue;
        };
        if !reached.insert(path.clone()) {
            continue;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let folder = if is_root || name == "mod.rs" {
            parent.to_owned()
        } else {
            path.trim_end_matches(".rs").to_owned()
        };
        let mut given = None;
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("#[path = \"") {
                given = rest.split('"').next();
            } else if let Some(module) = module_name(line) {
                match given.take() {
                    Some(file) => open.push((format!("{parent}/{file}"), false)),
                    None => {
                        open.push((format!("{folder}/{module}.rs"), false));
                        open.push((format!("{folder}/{module}/mod.rs"), false));
                    }
                }
            }
        }
    }
    tree.iter()
        .filter(|file| file.path.ends_with(".rs") && !reached.contains(&file.path))
        .map(|file| finding(&file.path, "no package compiles this file"))
        .collect()
}

/// Decoders of stored forms without a body, bodies `fuzz_NAME` without a target of that name,
/// targets without a body, and targets without a seed that is not empty.
pub(crate) fn fuzz_gaps(tree: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut bodies = BTreeSet::new();
    for file in tree
        .iter()
        .filter(|file| file.path.contains("/src/format/"))
    {
        let decodes = ["pub fn decode", "pub(crate) fn decode"];
        if decodes.iter().any(|decode| file.text.contains(decode))
            && !file.text.contains("pub fn fuzz_")
        {
            findings.push(finding(
                &file.path,
                "decodes a stored form and has no fuzz body",
            ));
        }
    }
    for file in tree.iter().filter(|file| file.path.contains("/src/")) {
        for line in file.text.lines() {
            let Some(rest) = line.trim_start().strip_prefix("pub fn fuzz_") else {
                continue;
            };
            let name = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or("");
            let target = format!("fuzz/fuzz_targets/{name}.rs");
            bodies.insert(target.clone());
            let call = format!("::fuzz_{name}(data)");
            if !tree
                .iter()
                .any(|file| file.path == target && file.text.contains(&call))
            {
                findings.push(finding(&file.path, format!("fuzz_{name} has no {target}")));
            }
        }
    }
    let manifest = tree.iter().find(|file| file.path == "fuzz/Cargo.toml");
    let manifest = manifest.map_or("", |file| file.text.as_str());
    for file in tree
        .iter()
        .filter(|file| file.path.starts_with("fuzz/fuzz_targets/"))
    {
        let name = file
            .path
            .trim_start_matches("fuzz/fuzz_targets/")
            .trim_end_matches(".rs");
        if !bodies.contains(&file.path) {
            findings.push(finding(
                &file.path,
                format!("no crate has a body fuzz_{name}"),
            ));
        }
        if !manifest.contains(&format!("name = \"{name}\"\n")) {
            findings.push(finding(&file.path, "not in fuzz/Cargo.toml"));
        }
        let corpus = format!("fuzz/corpus/{name}/");
        if !tree
            .iter()
            .any(|seed| seed.path.starts_with(&corpus) && seed.len > 0)
        {
            findings.push(finding(&file.path, format!("no seed in {corpus}")));
        }
    }
    findings
}

/// Entries of a folder of goldens that no Rust file names.
pub(crate) fn unused_goldens(tree: &[SourceFile]) -> Vec<Finding> {
    let mut goldens = BTreeSet::new();
    for file in tree.iter().filter(|file| !file.path.ends_with("README.md")) {
        for folder in ["tests/golden/", "/testdata/"] {
            let Some((_, inside)) = file.path.split_once(folder) else {
                continue;
            };
            let name = inside.split('/').next().unwrap_or(inside);
            goldens.insert((
                file.path.trim_end_matches(inside).to_owned(),
                name.to_owned(),
            ));
        }
    }
    let named = |name: &str| {
        let quoted = [format!("{name}\""), format!("{name}/")];
        let mut rust = tree.iter().filter(|file| file.path.ends_with(".rs"));
        rust.any(|file| quoted.iter().any(|q| file.text.contains(q)))
    };
    let unused = goldens.into_iter().filter(|(_, name)| !named(name));
    unused
        .map(|(folder, name)| finding(&format!("{folder}{name}"), "no test names it"))
        .collect()
}

/// Relative links in Markdown whose file does not exist.
pub(crate) fn dead_links(tree: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, line) in file.text.lines().enumerate() {
            for link in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                let target = link.split('#').next().unwrap_or(link);
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let path = resolve(&file.path, target);
                let exists = tree
                    .iter()
                    .any(|file| file.path == path || file.path.starts_with(&format!("{path}/")));
                if !exists {
                    findings.push(Finding {
                        path: file.path.clone(),
                        line: index + 1,
                        what: format!("{link} leads nowhere"),
                    });
                }
            }
        }
    }
    findings
}

/// Test names in the `Tested by` lines of the invariants that are no function of the project.
pub(crate) fn unknown_tests(tree: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.iter().filter(|file| file.path == "docs/invariants.md") {
        for (index, line) in file.text.lines().enumerate() {
            let Some(names) = line.strip_prefix("Tested by") else {
                continue;
            };
            for name in names.split('`').skip(1).step_by(2) {
                let function = format!("fn {name}(");
                let mut rust = tree.iter().filter(|file| file.path.ends_with(".rs"));
                if !rust.any(|file| file.text.contains(&function)) {
                    let what = format!("there is no test `{name}`");
                    findings.push(Finding {
                        path: file.path.clone(),
                        line: index + 1,
                        what,
                    });
                }
            }
        }
    }
    findings
}

/// The name in `mod name;`, whatever its visibility.
fn module_name(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    rest.strip_prefix("mod ")?.strip_suffix(';')
}

/// A link target as a path from the root.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn finding(path: &str, what: impl Into<String>) -> Finding {
    Finding {
        path: path.to_owned(),
        line: 0,
        what: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<SourceFile> {
        files
            .iter()
            .map(|(path, text)| SourceFile {
                path: (*path).to_owned(),
                len: text.len() as u64,
                text: (*text).to_owned(),
            })
            .collect()
    }

    fn paths(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.path.as_str())
            .collect()
    }

    fn package(name: &str, dependencies: &[&str], roots: &[&str]) -> Package {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Package {
            name: name.to_owned(),
            dependencies: owned(dependencies),
            roots: owned(roots),
        }
    }

    #[test]
    fn a_large_file_is_found() {
        let mut files = tree(&[("a", ""), ("b", "")]);
        files[0].len = MAX_FILE_LEN + 1;
        files[1].len = MAX_FILE_LEN;
        assert_eq!(paths(&large_files(&files)), ["a"]);
    }

    #[test]
    fn an_arrow_against_the_direction_is_found() {
        let packages = [
            package("strongroom-repo", &["ring", "strongroom-chunker"], &[]),
            package("strongroom-chunker", &["strongroom-core"], &[]),
            package(
                "strongroom-core",
                &["strongroom-repo", "strongroom-chunker"],
                &[],
            ),
            package("strongroom-tests", &["strongroom"], &[]),
            package("strongroom-new", &["strongroom-repo"], &[]),
        ];
        let found = forbidden_arrows(&packages);
        let expected = [
            "strongroom-repo",
            "strongroom-chunker",
            "strongroom-tests",
            "strongroom-new",
        ];
        assert_eq!(paths(&found), expected);
    }

    #[test]
    fn a_package_without_the_lints_is_found() {
        let files = tree(&[
            ("repo/Cargo.toml", "[lints]\nworkspace = true\n"),
            ("core/Cargo.toml", "[package]\n"),
            ("fuzz/Cargo.toml", "[package]\n"),
        ]);
        assert_eq!(paths(&lintless_packages(&files)), ["core/Cargo.toml"]);
    }

    #[test]
    fn a_forgotten_file_is_found_however_modules_are_declared() {
        let files = tree(&[
            (
                "repo/src/lib.rs",
                "pub mod a;\nmod b;\n#[cfg(test)]\n#[path = \"odd.rs\"]\nmod e;",
            ),
            ("repo/src/a/mod.rs", "pub(crate) mod c;"),
            ("repo/src/a/c.rs", "mod d;"),
            ("repo/src/a/c/d.rs", ""),
            ("repo/src/b.rs", "// mod f;"),
            ("repo/src/odd.rs", ""),
            ("repo/src/f.rs", ""),
            ("tests/engine/main.rs", "mod prune;"),
            ("tests/engine/prune.rs", ""),
            ("tests/engine/forgotten.rs", ""),
        ]);
        let packages = [
            package("r", &[], &["repo/src/lib.rs"]),
            package("t", &[], &["tests/engine/main.rs"]),
        ];
        let found = unreached_files(&files, &packages);
        assert_eq!(
            paths(&found),
            ["repo/src/f.rs", "tests/engine/forgotten.rs"]
        );
    }

    #[test]
    fn a_fuzz_body_without_target_entry_or_corpus_is_found() {
        let body = ("repo/src/pack.rs", "pub fn fuzz_pack(data: &[u8]) {}\n");
        let target = ("fuzz/fuzz_targets/pack.rs", "repo::fuzz_pack(data)");
        let entry = ("fuzz/Cargo.toml", "name = \"pack\"\n");
        let seed = ("fuzz/corpus/pack/one", "x");
        let found = |files: &[(&str, &str)]| fuzz_gaps(&tree(files)).len();
        assert_eq!(found(&[body, target, entry, seed]), 0);
        assert_eq!(found(&[body, entry, seed]), 1);
        assert_eq!(found(&[target, entry, seed]), 1);
        assert_eq!(found(&[body, target, seed]), 1);
        assert_eq!(found(&[body, target, entry]), 1);
        assert_eq!(
            found(&[body, target, entry, ("fuzz/corpus/pack/none", "")]),
            1
        );
        assert_eq!(
            found(&[body, (target.0, "repo::fuzz_index(data)"), entry, seed]),
            1
        );
    }

    #[test]
    fn a_golden_that_no_test_names_is_found() {
        let files = tree(&[
            ("tests/golden/README.md", ""),
            ("tests/golden/repo-v1/config", ""),
            ("tests/golden/repo-v2/config", ""),
            ("chunker/src/testdata/cuts.txt", ""),
            ("chunker/src/testdata/old.txt", ""),
            ("chunker/src/a.rs", "include_str!(\"testdata/cuts.txt\")"),
            ("tests/format/main.rs", "open(\"golden/repo-v1\")"),
        ]);
        let found = unused_goldens(&files);
        assert_eq!(
            paths(&found),
            ["chunker/src/testdata/old.txt", "tests/golden/repo-v2"]
        );
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "[a](b.md) [b](../README.md#x) [c](missing.md)\n[d](https://e.org) [f](#here)";
        let files = tree(&[
            ("docs/a.md", text),
            ("docs/b.md", ""),
            ("README.md", "[docs](docs/)"),
        ]);
        let found = dead_links(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "missing.md leads nowhere");
    }

    #[test]
    fn a_test_that_an_invariant_invents_is_found() {
        let files = tree(&[
            (
                "docs/invariants.md",
                "`not_this`\nTested by `real_one`, `made_up`.\n",
            ),
            ("repo/src/a.rs", "fn real_one() {}"),
        ]);
        let found = unknown_tests(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, 2);
    }
}
