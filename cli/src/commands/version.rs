//! `version`: which program this is.

use std::env::consts::{ARCH, OS};

use anyhow::Result;

use crate::{
    app::{App, PROGRAM},
    error::Code,
    show::json::Message,
};

#[derive(serde::Serialize)]
struct Version {
    version: &'static str,
    repository_version: u8,
    os: &'static str,
    arch: &'static str,
}

/// Runs it.
pub(crate) fn run(app: &App) -> Result<Code> {
    if app.show.json {
        let body = Version {
            version: env!("CARGO_PKG_VERSION"),
            repository_version: strongroom_repo::format::VERSION,
            os: OS,
            arch: ARCH,
        };
        app.show.json(&Message::new("version", body))?;
    } else {
        app.show.line(&format!("{PROGRAM} on {OS}/{ARCH}"))?;
    }
    Ok(Code::Success)
}
