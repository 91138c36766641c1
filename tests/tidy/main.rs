//! House rules as tests: what a reviewer would otherwise have to look for in every change. The
//! rules themselves are pure functions over a list of files in `text` (one file at a time),
//! `errors` (what can fail and what tries it) and `layout` (how files, packages, fuzz targets and
//! documents fit together), each with a test that a bad sample is found. Here: reading the tree,
//! and one test per rule on the real one.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test binary: to fail loudly is its job"
)]

mod errors;
mod layout;
mod text;

use std::{fmt, fs, path::Path, process::Command};

use layout::Package;

/// One file of the project.
struct SourceFile {
    /// Relative to the root, with `/`.
    path: String,
    len: u64,
    /// Empty where the file is not UTF-8.
    text: String,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files but those in folders that `.gitignore` names.
fn tree() -> Vec<SourceFile> {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: Vec<&str> = ignored
        .lines()
        .filter(|line| line.ends_with('/'))
        .map(|l| l.trim_matches('/'))
        .collect();
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry
                .path()
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let name = entry.file_name().to_str().unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if name == ".git" || ignored.iter().any(|i| *i == path || *i == name) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !name.ends_with(".snap.new") {
                let bytes = fs::read(entry.path()).unwrap();
                let len = bytes.len() as u64;
                files.push(SourceFile {
                    path,
                    len,
                    text: String::from_utf8(bytes).unwrap_or_default(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 30, "this is not the tree");
    files
}

/// The packages of the workspace and of `fuzz/`, as cargo sees their manifests.
fn packages() -> Vec<Package> {
    let mut packages = Vec::new();
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--offline",
                "--no-deps",
                "--format-version=1",
                "--manifest-path",
            ])
            .arg(root().join(manifest))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        for package in metadata["packages"].as_array().unwrap() {
            packages.push(Package {
                name: text(&package["name"]),
                dependencies: package["dependencies"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|dependency| text(&dependency["name"]))
                    .collect(),
                roots: package["targets"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|target| {
                        let path = text(&target["src_path"]);
                        let path = Path::new(&path).strip_prefix(root()).unwrap();
                        path.to_str().unwrap().to_owned()
                    })
                    .collect(),
            });
        }
    }
    packages
}

/// Fails with one line per finding.
fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} findings:\n{}\n",
        findings.len(),
        lines.join("\n")
    );
}

/// Declares a test on the real tree for each rule.
macro_rules! rules {
    ($(fn $test:ident($tree:ident) => $rule:expr;)*) => {
        $(
            #[test]
            fn $test() {
                let $tree = tree();
                assert_none(&$rule);
            }
        )*
    };
}

rules! {
    fn files_are_short(tree) => text::long_files(&tree);
    fn lines_are_narrow(tree) => text::wide_lines(&tree);
    fn every_rust_file_says_what_it_holds(tree) => text::missing_headers(&tree);
    fn nothing_unfinished_is_left_in_the_code(tree) => text::banned_words(&tree);
    fn tests_do_not_sleep(tree) => text::sleeping_tests(&tree);
    fn the_clock_is_read_in_one_place(tree) => text::clock_readers(&tree);
    fn no_path_of_one_machine_is_in_the_tree(tree) => text::machine_paths(&tree);
    fn unsafe_code_stays_where_it_is_allowed(tree) => text::unsafe_code(&tree);
    fn the_repository_is_written_through_its_backend(tree) => text::stray_writers(&tree);
    fn every_error_is_produced_by_a_test(tree) => errors::untried_errors(&tree);
    fn no_large_file_is_kept(tree) => layout::large_files(&tree);
    fn dependencies_follow_the_arrows(_tree) => layout::forbidden_arrows(&packages());
    fn every_package_takes_the_lints(tree) => layout::lintless_packages(&tree);
    fn every_rust_file_is_compiled(tree) => layout::unreached_files(&tree, &packages());
    fn every_fuzz_body_has_a_target_and_a_corpus(tree) => layout::fuzz_gaps(&tree);
    fn every_golden_is_used(tree) => layout::unused_goldens(&tree);
    fn links_between_documents_lead_somewhere(tree) => layout::dead_links(&tree);
    fn tests_named_by_the_invariants_exist(tree) => layout::unknown_tests(&tree);
}
