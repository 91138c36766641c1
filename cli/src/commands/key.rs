//! `key`: who can open the repository.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Subcommand, ValueEnum};
use strongroom_repo::{
    crypto::KdfParams,
    format::{log::EntryKind, slot::Role},
    id::SlotId,
    repository::{KeyInfo, NewKey, Repository},
};

use crate::{
    app::App,
    env::User,
    error::{Code, Hint},
    password::{Given, Source},
    select::one_of,
    show::{
        json::Message,
        table::{Column, Table},
        text,
    },
    units::Size,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Show the keys of the repository
    List,
    /// Add a key with a password of its own
    Add(AddArgs),
    /// Remove keys: they open nothing from then on
    ///
    /// What everything is sealed with stays the same: whoever kept a copy of a key's files can read
    /// later backups with it, too. Only a new repository keeps them out.
    Remove(RemoveArgs),
    /// Change the password of the key in use
    ///
    /// What everything is sealed with stays the same: whoever knows the old password and kept a
    /// copy of the key's files can read later backups with it, too. Only a new repository keeps
    /// them out.
    Passwd(PasswdArgs),
}

#[derive(clap::Args, Debug)]
struct AddArgs {
    #[command(flatten)]
    new: NewPasswordArgs,

    /// What the holder may write; everybody with a key can read
    #[arg(long, value_name = "ROLE", default_value = "owner")]
    role: RoleArg,

    /// Host to note with the key
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// User to note with the key
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    #[command(flatten)]
    kdf: KdfArgs,
}

#[derive(clap::Args, Debug)]
struct RemoveArgs {
    /// IDs of keys, or how they begin
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(clap::Args, Debug)]
struct PasswdArgs {
    #[command(flatten)]
    new: NewPasswordArgs,

    #[command(flatten)]
    kdf: KdfArgs,
}

/// Where a new password comes from.
#[derive(clap::Args, Debug)]
struct NewPasswordArgs {
    /// File that holds the new password
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    /// Use an empty password for the new key
    #[arg(long, conflicts_with = "new_password_file")]
    new_insecure_no_password: bool,
}

impl NewPasswordArgs {
    /// The variables hold the password of the repository: they are not asked for the new one.
    fn read(&self, app: &App) -> Result<Vec<u8>> {
        let given = Given {
            file: self.new_password_file.clone(),
            none: self.new_insecure_no_password,
            ..Given::default()
        };
        Source::choose(given, &crate::env::Vars::default())?.read_new(&app.show)
    }
}

/// What guessing a password costs.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct KdfArgs {
    /// Memory that every try of a password takes, 64MiB to 4GiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    kdf_memory: Size,

    /// Passes over that memory, 3 to 32
    #[arg(long, value_name = "N", default_value_t = KdfParams::DEFAULT.time)]
    kdf_time: u32,
}

impl KdfArgs {
    /// The parameters, checked.
    pub(crate) fn params(self) -> Result<KdfParams> {
        let params = KdfParams {
            memory_kib: u32::try_from(self.kdf_memory.0 >> 10).unwrap_or(u32::MAX),
            time: self.kdf_time,
            lanes: KdfParams::DEFAULT.lanes,
        };
        params
            .check()
            .context("--kdf-memory must be 64MiB to 4GiB, --kdf-time 3 to 32")
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// Everything
    Owner,
    /// Nothing
    Reader,
    /// Backups
    Writer,
    /// Removing snapshots and pruning
    Maintenance,
    /// What a check found
    Verifier,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => Self::Owner,
            RoleArg::Reader => Self::Reader,
            RoleArg::Writer => Self::Writer,
            RoleArg::Maintenance => Self::Maintenance,
            RoleArg::Verifier => Self::Verifier,
        }
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: Args) -> Result<Code> {
    match args.command {
        KeyCommand::List => list(app, &app.open()?),
        KeyCommand::Add(args) => add(app, args),
        KeyCommand::Remove(args) => remove(app, &args),
        KeyCommand::Passwd(args) => {
            let kdf = args.kdf.params()?;
            let repo = app.open()?;
            let password = args.new.read(app)?;
            repo.change_password(&password, kdf)
                .context("cannot change the password")?;
            app.show.note("the password is changed")?;
            Ok(Code::Success)
        }
    }
}

#[derive(serde::Serialize)]
struct KeyJson {
    current: bool,
    id: String,
    #[serde(rename = "userName")]
    user_name: String,
    #[serde(rename = "hostName")]
    host_name: String,
    created: String,
    role: String,
    live: bool,
}

impl From<&KeyInfo> for KeyJson {
    fn from(key: &KeyInfo) -> Self {
        let (user, host) = divide(&key.label);
        Self {
            current: key.current,
            id: key.slot.to_hex(),
            user_name: user.to_owned(),
            host_name: host.to_owned(),
            created: text::rfc3339(key.created),
            role: key.role.to_string(),
            live: key.live,
        }
    }
}

fn divide(label: &str) -> (&str, &str) {
    label.split_once('@').unwrap_or((label, ""))
}

fn list(app: &App, repo: &Repository) -> Result<Code> {
    let keys = repo.keys().context("cannot list the keys")?;
    if app.show.json {
        let keys: Vec<_> = keys.iter().map(KeyJson::from).collect();
        app.show.json(&keys)?;
        return Ok(Code::Success);
    }
    let mut table = Table::new(&[
        Column::text(" ID"),
        Column::flexible("User"),
        Column::flexible("Host"),
        Column::text("Role"),
        Column::text("Made"),
    ]);
    for key in &keys {
        let mark = match (key.current, key.live) {
            (true, _) => '*',
            (false, true) => ' ',
            (false, false) => '-',
        };
        let (user, host) = divide(&key.label);
        table.row(vec![
            format!("{mark}{}", key.slot.short()),
            text::safe(user),
            text::safe(host),
            key.role.to_string(),
            text::time(key.created, &app.show.zone),
        ]);
    }
    app.show.table(&table)?;
    if keys.iter().any(|key| !key.live && !key.current) {
        app.show.note("- removed: opens nothing any more")?;
    }
    Ok(Code::Success)
}

#[derive(serde::Serialize)]
struct KeyChanged {
    id: String,
}

fn add(app: &App, args: AddArgs) -> Result<Code> {
    let kdf = args.kdf.params()?;
    let repo = app.open()?;
    repo.require(EntryKind::KeyChange)?;
    let user = args.user.unwrap_or_else(|| User::current().name);
    let password = args.new.read(app)?;
    let new = NewKey {
        label: format!("{user}@{}", app.host(args.host.as_deref())?),
        role: args.role.into(),
        password: &password,
        kdf,
    };
    let id = repo.add_key(new).context("cannot add a key")?;
    if app.show.json {
        let body = KeyChanged { id: id.to_hex() };
        app.show.json(&Message::new("key_added", body))?;
    } else {
        app.show.note(&format!("added key {}", id.short()))?;
    }
    Ok(Code::Success)
}

fn remove(app: &App, args: &RemoveArgs) -> Result<Code> {
    let repo = app.open()?;
    repo.require(EntryKind::KeyChange)?;
    let keys = repo.keys().context("cannot list the keys")?;
    let mut slots: Vec<SlotId> = keys.iter().map(|key| key.slot).collect();
    slots.sort();
    slots.dedup();
    let mut wanted = Vec::new();
    for prefix in &args.ids {
        let found = one_of("key", prefix, slots.iter().copied(), SlotId::to_hex);
        let hint = |error| Hint::of("`strongroom key list` shows the keys").on(error);
        wanted.push(found.map_err(hint)?);
    }
    wanted.dedup();
    if wanted.len() == slots.len() {
        bail!("these are all keys: nobody could open the repository any more");
    }
    for slot in wanted {
        repo.remove_key(slot)
            .with_context(|| format!("cannot remove key {}", slot.short()))?;
        if app.show.json {
            let body = KeyChanged { id: slot.to_hex() };
            app.show.json(&Message::new("key_removed", body))?;
        } else {
            app.show.note(&format!("removed key {}", slot.short()))?;
        }
    }
    Ok(Code::Success)
}
