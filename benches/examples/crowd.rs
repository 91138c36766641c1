//! Adds index objects of made-up blobs to a repository, so that commands can be measured in one
//! with millions of entries. Their packs are not there: only what looks blobs up works in it.
//!
//! `cargo run --release -p strongroom-benches --example crowd -- REPOSITORY PASSWORD_FILE OBJECTS`,
//! 32,000 blobs an index object.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{error::Error, ffi::OsString, sync::Arc};

use strongroom_repo::{
    backend::{LocalOptions, Location},
    env::Env,
    index::synthetic::Synthetic,
    repository::{OpenOptions, Repository, Secret, testing::index_made_up},
};

/// Index objects that one entry of the log names.
const AT_ONCE: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let location: OsString = args.next().ok_or("which repository?")?;
    let password = std::fs::read(args.next().ok_or("which file with the password?")?)?;
    let objects = args.next().and_then(|word| word.into_string().ok());
    let objects = objects.ok_or("how many index objects?")?.parse()?;
    let made_up = Synthetic {
        objects,
        packs: 1000,
        blobs: 32,
    };
    let env = Env::system()?;
    let location = Location::parse(&location)?;
    let backend = Arc::from(location.open(LocalOptions::new(env.run()))?);
    let secret = Secret::Password(password.trim_ascii_end().to_vec());
    let repo = Repository::open(backend, env, secret, OpenOptions::default())?;
    let live: Vec<_> = made_up.live().into_iter().collect();
    for ids in live.chunks(AT_ONCE) {
        let bodies = ids.iter().flat_map(|id| made_up.body(*id).packs);
        index_made_up(&repo, bodies.collect())?;
    }
    println!("{} entries", repo.index().copy_count());
    Ok(())
}
