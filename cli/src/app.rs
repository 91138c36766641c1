//! What every command works with: the options and variables, resolved; output; the way to the
//! repository. An option that is given wins over its variable; a variable with a value that makes
//! no sense is an error, never passed over.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum as _;
use strongroom_repo::{
    backend::{Backend, LocalOptions, Location},
    env::Env,
    error::Error as RepoError,
    repository::{OpenOptions, Repository, Secret},
    writer::WriterOptions,
};

use crate::{
    args::{Compression, GlobalArgs},
    env::{self, Vars},
    password::{Given, Source},
    show::{Level, Show},
    signals,
};

/// The program as its snapshots name it.
pub(crate) const PROGRAM: &str = concat!("strongroom ", env!("CARGO_PKG_VERSION"));

/// What every command works with.
#[derive(Debug)]
pub(crate) struct App {
    /// Options of every command.
    pub(crate) global: GlobalArgs,
    /// The environment.
    pub(crate) vars: Vars,
    /// Output.
    pub(crate) show: Show,
}

impl App {
    /// Puts together what was typed and what the environment says.
    pub(crate) fn new(global: GlobalArgs, vars: Vars) -> Self {
        let loudness = global
            .verbose
            .iter()
            .fold(0_u8, |sum, n| sum.saturating_add(*n));
        let level = match loudness {
            _ if global.quiet => Level::Quiet,
            0 => Level::Normal,
            1 => Level::Verbose,
            _ => Level::Everything,
        };
        let show = Show::new(global.json, level, &vars);
        Self { global, vars, show }
    }

    /// Where the repository is.
    pub(crate) fn location(&self) -> Result<Location> {
        self.given_location()?.ok_or_else(|| {
            anyhow!("no repository is given: use --repo or set STRONGROOM_REPOSITORY")
        })
    }

    /// Where the repository is; `None` where nobody said so.
    pub(crate) fn given_location(&self) -> Result<Option<Location>> {
        let text = self.location_text()?;
        Ok(text.as_deref().map(Location::parse).transpose()?)
    }

    fn location_text(&self) -> Result<Option<OsString>> {
        if let Some(repo) = &self.global.repo {
            return Ok(Some(repo.clone()));
        }
        if let Some(file) = &self.global.repository_file {
            return read_location(file).map(Some);
        }
        match (
            self.vars.own("REPOSITORY"),
            self.vars.own("REPOSITORY_FILE"),
        ) {
            (Some(_), Some(_)) => {
                bail!(
                    "STRONGROOM_REPOSITORY and STRONGROOM_REPOSITORY_FILE are both set: unset one"
                )
            }
            (Some(repo), None) => Ok(Some(repo.to_owned())),
            (None, Some(file)) => read_location(Path::new(file)).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Where the password of the repository comes from.
    pub(crate) fn password(&self) -> Result<Source> {
        let given = Given {
            file: self.global.password_file.clone(),
            command: self.global.password_command.clone(),
            none: self.global.insecure_no_password,
        };
        Source::choose(given, &self.vars)
    }

    /// Opens the repository.
    pub(crate) fn open(&self) -> Result<Repository> {
        self.open_with(false)
    }

    /// Opens the repository; standard input may be taken by data.
    pub(crate) fn open_with(&self, stdin_is_data: bool) -> Result<Repository> {
        let location = self.location()?;
        let env = Env::system()?;
        let backend = open_backend(&location, &env)?;
        let password = self.password()?.read(&self.show, stdin_is_data)?;
        let options = self.open_options()?;
        if let Some(cache) = &options.cache_dir {
            signals::name_lost_cache(cache, self.show.json).context("cannot listen to signals")?;
        }
        Repository::open(backend, env, Secret::Password(password), options)
            .with_context(|| format!("cannot open the repository at {location}"))
    }

    /// The folders of this client and how it opens repositories.
    pub(crate) fn open_options(&self) -> Result<OpenOptions> {
        let cache_dir = if self.global.no_cache {
            None
        } else {
            self.global
                .cache_dir
                .clone()
                .or_else(|| self.vars.cache_dir())
        };
        Ok(OpenOptions {
            state_dir: self.vars.state_dir(),
            cache_dir,
            allow_rollback: self.global.allow_rollback,
            key_hint: match &self.global.key_hint {
                Some(hint) => Some(hint.clone()),
                None => self.text_variable("KEY_HINT")?,
            },
        })
    }

    /// How packs are written; `pack_target` is what the repository says.
    pub(crate) fn writer_options(&self, pack_target: u32) -> Result<WriterOptions> {
        Ok(WriterOptions {
            level: self.compression()?.into(),
            verify: !self.global.no_extra_verify,
            pack_target: self.pack_target()?.unwrap_or(pack_target),
            ..WriterOptions::default()
        })
    }

    /// How hard to compress.
    pub(crate) fn compression(&self) -> Result<Compression> {
        let variable =
            || self.parsed_variable("COMPRESSION", |text| Compression::from_str(text, true));
        match self.global.compression {
            Some(compression) => Ok(compression),
            None => Ok(variable()?.unwrap_or_default()),
        }
    }

    /// The pack size asked for, in bytes.
    pub(crate) fn pack_target(&self) -> Result<Option<u32>> {
        let in_range = |text: &str| match text.parse::<u32>() {
            Ok(mib @ 4..=128) => Ok(mib),
            _ => Err("not a number of MiB from 4 to 128".to_owned()),
        };
        let mib = match self.global.pack_size {
            Some(mib) => Some(mib),
            None => self.parsed_variable("PACK_SIZE", in_range)?,
        };
        Ok(mib.map(|mib| mib << 20))
    }

    /// A variable of the program, parsed.
    pub(crate) fn parsed_variable<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        self.text_variable(name)?
            .map(|text| {
                parse(&text).map_err(|why| {
                    anyhow!(
                        "the value {text:?} of {} is wrong: {why}",
                        env::full_name(name)
                    )
                })
            })
            .transpose()
    }

    /// A variable of the program of a type that parses itself.
    pub(crate) fn typed_variable<T: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>> {
        self.parsed_variable(name, |text| text.parse().map_err(|e: T::Err| e.to_string()))
    }

    /// A switch of the environment: yes or no in the usual spellings.
    pub(crate) fn switch_variable(&self, name: &str) -> Result<bool> {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "yes" | "on" => Ok(true),
            "0" | "f" | "false" | "no" | "off" => Ok(false),
            _ => Err("neither true nor false".to_owned()),
        };
        Ok(self.parsed_variable(name, parse)?.unwrap_or(false))
    }

    /// A variable of the program, as text.
    pub(crate) fn text_variable(&self, name: &str) -> Result<Option<String>> {
        let text = |value: &OsStr| {
            value
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| anyhow!("the value of {} is not UTF-8", env::full_name(name)))
        };
        self.vars.own(name).map(text).transpose()
    }

    /// The name of the host for new snapshots and keys.
    pub(crate) fn host(&self, given: Option<&str>) -> Result<String> {
        match given.filter(|host| !host.is_empty()) {
            Some(host) => Ok(host.to_owned()),
            None => Ok(self.text_variable("HOST")?.unwrap_or_else(env::host)),
        }
    }
}

/// Opens the store; that there is none is that there is no repository.
pub(crate) fn open_backend(location: &Location, env: &Env) -> Result<Arc<dyn Backend>> {
    match location.open(LocalOptions::new(env.run())) {
        Ok(backend) => Ok(Arc::from(backend)),
        Err(error) if error.is_not_found() => Err(RepoError::NoRepository {
            location: location.to_string(),
        }
        .into()),
        Err(error) => Err(anyhow::Error::new(RepoError::Backend(error))
            .context(format!("cannot open the repository at {location}"))),
    }
}

fn read_location(file: &Path) -> Result<OsString> {
    let bytes = std::fs::read(file)
        .with_context(|| format!("cannot read the repository file {}", file.display()))?;
    Ok(OsStr::from_bytes(bytes.trim_ascii()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app<const N: usize>(pairs: [(&str, &str); N]) -> App {
        App::new(GlobalArgs::default(), Vars::of(pairs))
    }

    #[test]
    fn an_option_wins_over_its_variable() {
        let mut app = app([
            ("STRONGROOM_REPOSITORY", "/variable"),
            ("STRONGROOM_COMPRESSION", "max"),
        ]);
        assert_eq!(app.location().unwrap(), Location::Local("/variable".into()));
        assert_eq!(app.compression().unwrap(), Compression::Max);
        app.global.repo = Some("/option".into());
        app.global.compression = Some(Compression::Off);
        assert_eq!(app.location().unwrap(), Location::Local("/option".into()));
        assert_eq!(app.compression().unwrap(), Compression::Off);
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_an_error_that_names_it() {
        let app = app([
            ("STRONGROOM_COMPRESSION", "hard"),
            ("STRONGROOM_PACK_SIZE", "1"),
            ("STRONGROOM_IGNORE_CTIME", "perhaps"),
        ]);
        let told = |error: anyhow::Error| error.to_string();
        assert!(told(app.compression().unwrap_err()).contains("STRONGROOM_COMPRESSION"));
        assert!(told(app.pack_target().unwrap_err()).contains("STRONGROOM_PACK_SIZE"));
        assert!(app.switch_variable("IGNORE_CTIME").is_err());
    }

    #[test]
    fn two_places_for_a_repository_contradict_and_none_is_an_error() {
        let both = app([
            ("STRONGROOM_REPOSITORY", "/a"),
            ("STRONGROOM_REPOSITORY_FILE", "/b"),
        ]);
        assert!(both.location().is_err());
        assert!(app([]).location().is_err());
    }
}
