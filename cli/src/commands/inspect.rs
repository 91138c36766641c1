//! `inspect`: what a layout sees in a file, which codec each part took, and what that saved.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use strongroom_chunker::layout::{SegmentKind, Tensor};
use strongroom_core::{
    error::{Error, SourceAction},
    format::tree::Body,
    inspect::{Inspection, Part, Usage, codec_name, inspect_content, inspect_file},
    snapshots::SnapshotFilter,
    view::View,
};

use crate::{
    app::App,
    error::Code,
    select::{self, Wanted},
    show::{
        table::{Column, Table},
        text,
    },
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A file on disk is cut and encoded for trial, and nothing is stored; no repository is needed. Of a
file in a snapshot it is told how its chunks were stored, each counted as often as it occurs.

Examples:
  strongroom inspect model.safetensors
  strongroom inspect latest:/srv/models/model.safetensors
  strongroom inspect --json disk.img")]
pub(crate) struct Args {
    /// A file on disk, or a snapshot and a file in it
    #[arg(value_name = "FILE|SNAPSHOT:FILE")]
    file: OsString,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let name = text::name(args.file.as_bytes());
    let found = if Path::new(&args.file).exists() || !args.file.as_bytes().contains(&b':') {
        on_disk(app, Path::new(&args.file)).with_context(|| format!("cannot inspect {name}"))?
    } else {
        in_snapshot(app, args)?
    };
    if app.show.json {
        app.show.json(&to_json(&args.file, &found))?;
    } else {
        show(app, &name, &found)?;
    }
    Ok(Code::Success)
}

fn on_disk(app: &App, path: &Path) -> Result<Inspection> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    ensure!(meta.is_file(), "it is not a regular file");
    let mut read = |offset: u64, buffer: &mut [u8]| {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + u64::try_from(filled).unwrap_or(0);
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            match file.read_at(rest, at) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Source {
                        action: SourceAction::Read,
                        path: path.as_os_str().as_bytes().to_vec(),
                        source,
                    });
                }
            }
        }
        Ok(filled)
    };
    let level = app.compression()?.into();
    Ok(inspect_file(meta.len(), level, &mut read)?)
}

fn in_snapshot(app: &App, args: &Args) -> Result<Inspection> {
    let wanted = Wanted::parse(&args.file)?;
    let repo = app.open()?;
    let found = select::find(&repo, &wanted.id, &SnapshotFilter::default())?;
    let view = View::open(&repo, &found.record)?;
    let entry = view.lookup_typed(&wanted.folder)?;
    let Body::File(content) = entry.body else {
        bail!("{} is not a file", text::name(&wanted.folder));
    };
    inspect_content(&repo, &view, &content)
        .with_context(|| format!("cannot inspect {}", text::name(args.file.as_bytes())))
}

/// The tensors that lie in a part.
fn tensors_of<'i>(found: &'i Inspection, part: &Part) -> &'i [Tensor] {
    let tensors = found.description.tensors.as_slice();
    let range = &part.segment.range;
    let first = tensors.partition_point(|tensor| tensor.range.start < range.start);
    let end = tensors.partition_point(|tensor| tensor.range.start < range.end);
    tensors.get(first..end).unwrap_or_default()
}

fn show(app: &App, name: &str, found: &Inspection) -> Result<()> {
    let tensors = found.description.tensors.len();
    let mut about = format!("{name}: {}", found.description.format.name());
    if tensors > 0 {
        let number = u64::try_from(tensors).unwrap_or(u64::MAX);
        about += &format!(", {}", text::count(number, "tensor", "tensors"));
    }
    app.show.note(&about)?;
    let mut table = Table::new(&[
        Column::flexible("Part"),
        Column::text("Type"),
        Column::text("Shape"),
        Column::number("Size"),
        Column::number("Stored"),
        Column::number("Share"),
        Column::text("Codec"),
    ]);
    let (mut rest, mut rest_len) = (found.elsewhere.clone(), 0);
    for part in &found.parts {
        let len = part.segment.range.end - part.segment.range.start;
        let within = tensors_of(found, part);
        for tensor in within {
            let len = tensor.range.end - tensor.range.start;
            let usage = (within.len() == 1).then_some(&part.usage);
            table.row(row(tensor_cells(tensor), len, usage));
        }
        match within {
            [] => {
                rest.merge(&part.usage);
                rest_len += len;
            }
            [_] => {}
            _ => table.row(row(["  (together)", "", ""], len, Some(&part.usage))),
        }
    }
    if rest_len > 0 {
        let what = match found.parts.as_slice() {
            [part] => match part.segment.kind {
                SegmentKind::Pages { .. } => "pages",
                SegmentKind::Blocks { .. } => "blocks",
                _ => "content",
            },
            _ => "everything else",
        };
        table.row(row([what, "", ""], rest_len, Some(&rest)));
    }
    if table.len() > 1 {
        table.row(row(["total", "", ""], found.len, Some(&found.total())));
    }
    app.show.table(&table)
}

fn tensor_cells(tensor: &Tensor) -> [String; 3] {
    let order = if tensor.big_endian {
        " (big-endian)"
    } else {
        ""
    };
    [
        match tensor.name.as_str() {
            "" => "(array)".to_owned(),
            name => text::name(name.as_bytes()),
        },
        format!("{}{order}", tensor.dtype.name()),
        tensor.shape.as_deref().map(shape).unwrap_or_default(),
    ]
}

fn shape(sides: &[u64]) -> String {
    if sides.is_empty() {
        return "scalar".to_owned();
    }
    let sides: Vec<String> = sides.iter().map(u64::to_string).collect();
    sides.join("x")
}

fn row(cells: [impl Into<String>; 3], len: u64, usage: Option<&Usage>) -> Vec<String> {
    let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
    cells.push(text::size(len));
    let Some(usage) = usage else {
        cells.resize(7, String::new());
        return cells;
    };
    cells.push(text::size(usage.stored()));
    cells.push(text::percent(usage.stored(), len));
    let mut names: Vec<_> = usage
        .codecs
        .keys()
        .map(|codec| codec_name(*codec))
        .collect();
    if usage.zeros > 0 {
        names.push("zeros");
    }
    cells.push(names.join(", "));
    cells
}

fn to_json(file: &OsString, found: &Inspection) -> Value {
    let tensors: Vec<Value> = found
        .description
        .tensors
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "dtype": tensor.dtype.name(),
                "big_endian": tensor.big_endian,
                "shape": tensor.shape,
                "offset": tensor.range.start,
                "size": tensor.range.end - tensor.range.start,
            })
        })
        .collect();
    let parts: Vec<Value> = found
        .parts
        .iter()
        .map(|part| {
            let (kind, dtype, grid) = match part.segment.kind {
                SegmentKind::Plain => ("plain", None, None),
                SegmentKind::Tensor { dtype, .. } => ("tensor", Some(dtype.name()), None),
                SegmentKind::Pages { page } => ("pages", None, Some(page)),
                SegmentKind::Blocks { grid } => ("blocks", None, Some(grid)),
            };
            let range = &part.segment.range;
            let mut value = usage_json(&part.usage);
            value.insert("kind".to_owned(), kind.into());
            value.insert("dtype".to_owned(), dtype.into());
            value.insert("block_size".to_owned(), grid.into());
            value.insert("offset".to_owned(), range.start.into());
            value.insert("size".to_owned(), (range.end - range.start).into());
            Value::Object(value)
        })
        .collect();
    json!({
        "file": file.to_string_lossy(),
        "format": found.description.format.name(),
        "size": found.len,
        "tensors": tensors,
        "parts": parts,
        "elsewhere": usage_json(&found.elsewhere),
        "total": usage_json(&found.total()),
    })
}

fn usage_json(usage: &Usage) -> Map<String, Value> {
    let codecs: Map<String, Value> = usage
        .codecs
        .iter()
        .map(|(codec, usage)| {
            let value = json!({
                "chunks": usage.chunks,
                "size": usage.plain,
                "stored": usage.stored,
            });
            (codec_name(*codec).to_owned(), value)
        })
        .collect();
    let fields = [
        ("chunks", usage.chunks().into()),
        ("stored", usage.stored().into()),
        ("zeros", usage.zeros.into()),
        ("codecs", Value::Object(codecs)),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
