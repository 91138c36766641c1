//! `init`: makes a repository and its first key.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use strongroom_chunker::{ChunkerKind, ChunkerParams};
use strongroom_repo::{
    backend::LocalOptions,
    env::{Env, Timestamp},
    format::config::ConfigBody,
    limits::DEFAULT_PACK_TARGET,
    repository::{CreateOptions, Repository, Secret},
};

use super::key::KdfArgs;
use crate::{
    app::{App, PROGRAM},
    env::User,
    error::Code,
    show::json::Message,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom -r /mnt/backup init
  strongroom -r /mnt/backup -p /etc/strongroom.pw init --kdf-memory 1GiB")]
pub(crate) struct Args {
    /// How files are divided into chunks; cannot be changed later
    #[arg(long, value_name = "KIND", default_value = "gear")]
    chunker: Chunker,

    #[command(flatten)]
    kdf: KdfArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Chunker {
    /// Fast, on all cores, and safe against guessing content from chunk sizes
    Gear,
    /// The widely used algorithm
    Fastcdc,
}

impl From<Chunker> for ChunkerKind {
    fn from(chunker: Chunker) -> Self {
        match chunker {
            Chunker::Gear => Self::Gear,
            Chunker::Fastcdc => Self::FastCdc,
        }
    }
}

#[derive(serde::Serialize)]
struct Initialized {
    id: String,
    repository: String,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let kdf = args.kdf.params()?;
    let location = app.location()?;
    let env = Env::system()?;
    let pack_target = app.pack_target()?.unwrap_or(DEFAULT_PACK_TARGET);
    let config = config(args.chunker.into(), pack_target)?;
    let label = format!("{}@{}", User::current().name, app.host(None)?);
    let open = app.open_options()?;
    let what = "cannot make a repository";
    // Nobody should think of a password in vain.
    match location.open(LocalOptions::new(env.run())) {
        Ok(there) => Repository::see_vacant(there.as_ref()).context(what)?,
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error).context(what),
    }
    let password = app.password()?.read_new(&app.show)?;
    let backend = location
        .create(LocalOptions::new(env.run()))
        .context(what)?;
    let options = CreateOptions {
        config,
        label,
        kdf,
        open,
    };
    let secret = Secret::Password(password);
    let repo = Repository::create(Arc::from(backend), env, secret, options).context(what)?;
    if app.show.json {
        let body = Initialized {
            id: repo.id().to_hex(),
            repository: location.to_string(),
        };
        app.show.json(&Message::new("initialized", body))?;
    } else {
        let id = repo.id().short();
        app.show
            .note(&format!("made repository {id} at {location}"))?;
        app.show
            .note("Keep the password safe: without it, everything in the repository is lost.")?;
    }
    Ok(Code::Success)
}

fn config(chunker: ChunkerKind, pack_target: u32) -> Result<ConfigBody> {
    let params = ChunkerParams::default();
    Ok(ConfigBody {
        created: Timestamp::default(),
        program: PROGRAM.to_owned(),
        chunker: chunker.into(),
        chunk_min: u32::try_from(params.min())?,
        chunk_avg: u32::try_from(params.avg())?,
        chunk_max: u32::try_from(params.max())?,
        pack_target,
    })
}
