//! `ls`: the files of a snapshot.

use std::{cmp::Ordering, ffi::OsString, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use strongroom_core::{
    format::tree::Body,
    node::{Node, NodeKind},
    path::ArchivePath,
    snapshots::LoadedSnapshot,
    view::{Event, View, Walk},
};
use strongroom_repo::id::SnapshotId;

use crate::{
    app::App,
    args::FilterArgs,
    error::{Code, story},
    select::{self, Wanted},
    show::{
        json::{Message, NodeJson, SnapshotJson, kind_words},
        text,
    },
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom ls latest
  strongroom ls -l latest /etc
  strongroom ls --sort size --reverse 12ab34cd:/srv")]
pub(crate) struct Args {
    /// The snapshot: its ID or how it begins, `latest`, or either with :FOLDER
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    snapshot: OsString,

    /// Only these folders and what is directly in them
    #[arg(value_name = "FOLDER")]
    folders: Vec<OsString>,

    /// Show permissions, owner, size and time
    #[arg(short, long)]
    long: bool,

    /// Go into the folders below those that are given
    #[arg(long)]
    recursive: bool,

    /// Show sizes in KiB, MiB, ...
    #[arg(long)]
    human_readable: bool,

    /// In which order
    #[arg(short, long, value_name = "BY", default_value = "name")]
    sort: Sort,

    /// In the opposite order
    #[arg(long)]
    reverse: bool,

    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Path
    Name,
    /// Size
    Size,
    /// Last change of the content
    #[value(alias = "mtime")]
    Time,
    /// Last access
    Atime,
    /// Last change of the inode
    Ctime,
    /// What follows the last dot of the name
    Extension,
}

impl Sort {
    fn compare(self, a: &(Vec<u8>, Node), b: &(Vec<u8>, Node)) -> Ordering {
        let by = match self {
            Self::Name => Ordering::Equal,
            Self::Size => size(&a.1).cmp(&size(&b.1)),
            Self::Time => a.1.meta.mtime.cmp(&b.1.meta.mtime),
            Self::Atime => a.1.meta.atime.cmp(&b.1.meta.atime),
            Self::Ctime => a.1.meta.ctime.cmp(&b.1.meta.ctime),
            Self::Extension => extension(&a.1.name).cmp(extension(&b.1.name)),
        };
        by.then_with(|| names(&a.0).cmp(names(&b.0)))
    }
}

fn extension(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(at) if at > 0 => name.get(at..).unwrap_or_default(),
        _ => &[],
    }
}

const fn size(node: &Node) -> u64 {
    match node.kind {
        NodeKind::File { size } => size,
        _ => 0,
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: Args) -> Result<Code> {
    let wanted = Wanted::parse(&args.snapshot)?;
    let filter = select::filter(app, &args.filter)?;
    let mut folders = Vec::new();
    for folder in &args.folders {
        folders.push(parse_folder(folder.as_bytes())?);
    }
    let repo = app.open()?;
    let found = select::find(&repo, &wanted.id, &filter)?;
    let entry = View::open(&repo, &found.record)?.lookup_typed(&wanted.folder)?;
    let Body::Dir(root) = entry.body else {
        bail!("{} is not a folder", text::name(&wanted.folder));
    };
    let view = View::of_tree(&repo, root)?;
    show_head(app, &found)?;
    let mut listing = Listing::new(app, &args);
    if folders.is_empty() {
        listing.walk(view.walk_all(), true)?;
    }
    for folder in &folders {
        let entry = view.lookup(folder)?;
        if !folder.is_root() {
            listing.meet(folder, &entry.node)?;
        }
        if let Body::Dir(tree) = entry.body {
            listing.walk(view.walk(folder, tree), args.recursive)?;
        }
    }
    listing.finish()
}

fn parse_folder(typed: &[u8]) -> Result<ArchivePath> {
    let name = || text::name(typed);
    ensure!(
        typed.starts_with(b"/"),
        "{} does not begin with /: folders of a snapshot are absolute",
        name()
    );
    let trimmed = typed.strip_suffix(b"/").unwrap_or(typed);
    ArchivePath::parse(trimmed).with_context(|| format!("{} is no path", name()))
}

fn show_head(app: &App, found: &LoadedSnapshot) -> Result<()> {
    let snapshot = &found.record;
    if app.show.json {
        let body = SnapshotJson::new(Some(found.id), snapshot);
        return app.show.json(&Message::new("snapshot", body));
    }
    let paths: Vec<_> = snapshot.paths.iter().map(|path| text::name(path)).collect();
    let id: SnapshotId = found.id;
    app.show.note(&format!(
        "snapshot {} of {} from {} by {}@{}:",
        id.short(),
        paths.join(", "),
        text::time(snapshot.time, &app.show.zone),
        text::safe(&snapshot.user),
        text::safe(&snapshot.host),
    ))
}

/// Shows entries as they come, or sorted at the end.
struct Listing<'a> {
    app: &'a App,
    args: &'a Args,
    kept: Vec<(Vec<u8>, Node)>,
    code: Code,
}

impl<'a> Listing<'a> {
    const fn new(app: &'a App, args: &'a Args) -> Self {
        Self {
            app,
            args,
            kept: Vec::new(),
            code: Code::Success,
        }
    }

    fn walk(&mut self, mut walk: Walk<'_>, recursive: bool) -> Result<()> {
        while let Some(event) = walk.next_event() {
            match event {
                Event::Entry(entry) => {
                    self.meet(walk.path(), &entry.node)?;
                    if !recursive {
                        walk.skip();
                    }
                }
                Event::Leave => {}
                Event::Damaged(error) => {
                    self.code = Code::Incomplete;
                    let path = text::name(&absolute(walk.path()));
                    let words = story(&error);
                    self.app
                        .show
                        .warn(&format!("cannot list all of {path}: {words}"));
                }
            }
        }
        Ok(())
    }

    fn meet(&mut self, path: &ArchivePath, node: &Node) -> Result<()> {
        let path = absolute(path);
        if self.args.sort == Sort::Name && !self.args.reverse {
            return self.show(&path, node);
        }
        self.kept.push((path, node.clone()));
        Ok(())
    }

    fn finish(mut self) -> Result<Code> {
        let mut kept = std::mem::take(&mut self.kept);
        kept.sort_by(|a, b| self.args.sort.compare(a, b));
        if self.args.reverse {
            kept.reverse();
        }
        for (path, node) in &kept {
            self.show(path, node)?;
        }
        Ok(self.code)
    }

    fn show(&self, path: &[u8], node: &Node) -> Result<()> {
        let show = &self.app.show;
        if show.json {
            let body = NodeJson::new(node, Some(path));
            return show.json(&Message::new("node", body));
        }
        if !self.args.long {
            return show.line(&text::name(path));
        }
        let meta = &node.meta;
        let (_, letter) = kind_words(&node.kind);
        let size = if self.args.human_readable {
            text::size(size(node))
        } else {
            size(node).to_string()
        };
        let mut line = format!(
            "{} {:>5} {:>5} {size:>10} {} {}",
            text::permissions(letter, meta.mode),
            meta.uid,
            meta.gid,
            text::time(meta.mtime, &show.zone),
            text::name(path),
        );
        if let NodeKind::Symlink { target } = &node.kind {
            line.push_str(" -> ");
            line.push_str(&text::name(target));
        }
        show.line(&line)
    }
}

fn absolute(path: &ArchivePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

#[cfg(test)]
mod tests {
    use strongroom_core::node::Metadata;

    use super::*;

    fn file(path: &str, size: u64) -> (Vec<u8>, Node) {
        let name = path.rsplit('/').next().unwrap_or(path);
        let node = Node {
            name: name.as_bytes().to_vec(),
            kind: NodeKind::File { size },
            meta: Metadata::default(),
        };
        (path.as_bytes().to_vec(), node)
    }

    #[test]
    fn orders_are_by_their_key_and_then_by_path_name_by_name() {
        let mut all = [file("/a-b", 1), file("/a/z.txt", 3), file("/a/b.bin", 3)];
        let order = |all: &mut [(Vec<u8>, Node)], sort: Sort| {
            all.sort_by(|a, b| sort.compare(a, b));
            all.iter()
                .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            order(&mut all, Sort::Name),
            ["/a/b.bin", "/a/z.txt", "/a-b"]
        );
        assert_eq!(
            order(&mut all, Sort::Size),
            ["/a-b", "/a/b.bin", "/a/z.txt"]
        );
        assert_eq!(
            order(&mut all, Sort::Extension),
            ["/a-b", "/a/b.bin", "/a/z.txt"]
        );
    }

    #[test]
    fn a_leading_dot_makes_no_extension() {
        assert_eq!(extension(b".profile"), b"");
        assert_eq!(extension(b"a.tar.gz"), b".gz");
    }
}
