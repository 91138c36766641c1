//! The URL of a server, as libpq reads it, turned into libpq's variables: that way the programs get
//! it without an argument that everybody on the machine could see.
//!
//! Must stay true: nothing of a URL is shown, not in an error either. Where a password holds a
//! character that should have been written as `%XX`, any part of the URL may be a part of it.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _};

/// What the programs of PostgreSQL are told of a server: their variables, beside those that they
/// inherit. Shows its names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    variables: Vec<(&'static str, OsString)>,
}

/// Why a URL is none of a server. Does not say where: see the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It begins otherwise.
    #[error("the URL of a PostgreSQL server begins with postgresql:// or postgres://")]
    Scheme,
    /// `%` without its digits, or `%00`.
    #[error(
        "in the URL of the PostgreSQL server, two hexadecimal digits other than 00 follow each '%'"
    )]
    Escape,
    /// A NUL byte.
    #[error("the URL of the PostgreSQL server contains a NUL byte")]
    Nul,
    /// An `@` behind the credentials: they may have been meant to go on up to there.
    #[error(
        "in the URL of the PostgreSQL server, each '@' but that before the host is written as %40"
    )]
    At,
    /// `[` without its `]`.
    #[error("in the URL of the PostgreSQL server, a '[' is not closed by a ']'")]
    Bracket,
    /// A port that is no number.
    #[error("in the URL of the PostgreSQL server, what should be a port is no number")]
    Port,
    /// A parameter that has no variable.
    #[error("the URL of the PostgreSQL server has a parameter that is not known")]
    Parameter,
    /// A parameter without a value.
    #[error("in the URL of the PostgreSQL server, a parameter is not of the form NAME=VALUE")]
    NoValue,
}

/// The parameters of a connection that libpq also takes from a variable.
const PARAMETERS: [(&str, &str); 30] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("requirepeer", "PGREQUIREPEER"),
    ("require_auth", "PGREQUIREAUTH"),
    ("gssencmode", "PGGSSENCMODE"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("gsslib", "PGGSSLIB"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Variables that would lead elsewhere than the host that a URL names.
const OTHER_WAYS: [&str; 2] = ["PGHOSTADDR", "PGSERVICE"];

impl Connection {
    /// Reads a URL. An empty one says nothing: everything is as the inherited variables have it.
    ///
    /// # Errors
    /// It is none, or has a part that cannot be handed on.
    pub fn parse(url: &[u8]) -> Result<Self, UrlError> {
        let mut connection = Self::default();
        if url.is_empty() {
            return Ok(connection);
        }
        if url.contains(&0) {
            return Err(UrlError::Nul);
        }
        let rest = url
            .strip_prefix(b"postgresql://")
            .or_else(|| url.strip_prefix(b"postgres://"))
            .ok_or(UrlError::Scheme)?;
        // As libpq does it: credentials end at the first '@', where no '/' comes before it.
        let ends = rest.iter().position(|byte| matches!(byte, b'@' | b'/'));
        let rest = match ends.and_then(|at| rest.split_at_checked(at)) {
            Some((credentials, [b'@', rest @ ..])) => {
                let (user, password) = halves(credentials, b':');
                connection.set("PGUSER", user)?;
                connection.set("PGPASSWORD", password.unwrap_or_default())?;
                rest
            }
            _ => rest,
        };
        let (rest, parameters) = halves(rest, b'?');
        let (hosts, database) = halves(rest, b'/');
        if hosts.contains(&b'@') {
            return Err(UrlError::At);
        }
        connection.set_hosts(hosts)?;
        let behind = [database, parameters];
        if behind.iter().flatten().any(|part| part.contains(&b'@')) {
            return Err(UrlError::At);
        }
        connection.set("PGDATABASE", database.unwrap_or_default())?;
        for parameter in parameters.unwrap_or_default().split(|byte| *byte == b'&') {
            if !parameter.is_empty() {
                connection.set_parameter(parameter)?;
            }
        }
        Ok(connection)
    }

    /// The variables that a program gets.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.variables.iter().map(|(name, value)| (*name, value))
    }

    /// The inherited variables that a program must not get.
    pub fn withheld(&self) -> impl Iterator<Item = &'static str> {
        let host = self.variable("PGHOST").is_some();
        OTHER_WAYS.into_iter().filter(move |_| host)
    }

    /// A variable that the URL says.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        let mut found = self.variables.iter().filter(|(other, _)| *other == name);
        found.next_back().map(|(_, value)| value)
    }

    fn set_hosts(&mut self, hosts: &[u8]) -> Result<(), UrlError> {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        let mut rest = hosts;
        loop {
            let (name, after): (&[u8], &[u8]) = if let Some(rest) = rest.strip_prefix(b"[") {
                let (name, after) = halves(rest, b']');
                (name, after.ok_or(UrlError::Bracket)?)
            } else {
                let end = rest.iter().position(|byte| matches!(byte, b':' | b','));
                rest.split_at_checked(end.unwrap_or(rest.len()))
                    .unwrap_or((rest, b""))
            };
            let (port, next) = halves(after, b',');
            names.push(decode(name)?);
            ports.push(match port {
                [] => Vec::new(),
                [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => port.to_vec(),
                _ => return Err(UrlError::Port),
            });
            match next {
                Some(next) => rest = next,
                None => break,
            }
        }
        for (variable, parts) in [("PGHOST", names), ("PGPORT", ports)] {
            if parts.iter().any(|part| !part.is_empty()) {
                let value = OsString::from_vec(parts.join(&b','));
                self.variables.push((variable, value));
            }
        }
        Ok(())
    }

    fn set_parameter(&mut self, parameter: &[u8]) -> Result<(), UrlError> {
        let (name, value) = halves(parameter, b'=');
        let value = value.ok_or(UrlError::NoValue)?;
        let name = decode(name)?;
        if (name.as_slice(), value) == (b"ssl", b"true") {
            return self.set("PGSSLMODE", b"require");
        }
        let known = PARAMETERS
            .iter()
            .find(|(known, _)| known.as_bytes() == name);
        let (_, variable) = known.ok_or(UrlError::Parameter)?;
        self.set(variable, value)
    }

    fn set(&mut self, variable: &'static str, value: &[u8]) -> Result<(), UrlError> {
        if !value.is_empty() {
            let value = OsString::from_vec(decode(value)?);
            self.variables.push((variable, value));
        }
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.variables.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

/// What is before and behind the first separator.
fn halves(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| *byte == separator);
    (parts.next().unwrap_or_default(), parts.next())
}

/// Bytes with `%XX` in place of some.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, UrlError> {
    let digit = |byte: Option<&u8>| {
        let digit = byte.and_then(|byte| char::from(*byte).to_digit(16));
        digit.and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(0), Some(0)) | (None, _) | (_, None) => return Err(UrlError::Escape),
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(url: &str) -> Vec<(&'static str, String)> {
        let connection = Connection::parse(url.as_bytes()).unwrap();
        let variables = connection.variables();
        variables
            .map(|(name, value)| (name, value.to_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn every_part_of_a_url_becomes_its_variable() {
        let cases: [(&str, &[(&str, &str)]); 9] = [
            ("", &[]),
            ("postgres://", &[]),
            (
                "postgresql://me:s%40:crt@db.example:5433/shop?\
                 sslmode=verify-full&application_name=a%20b",
                &[
                    ("PGUSER", "me"),
                    ("PGPASSWORD", "s@:crt"),
                    ("PGHOST", "db.example"),
                    ("PGPORT", "5433"),
                    ("PGDATABASE", "shop"),
                    ("PGSSLMODE", "verify-full"),
                    ("PGAPPNAME", "a b"),
                ],
            ),
            (
                "postgres://[::1]:5433",
                &[("PGHOST", "::1"), ("PGPORT", "5433")],
            ),
            (
                "postgres://%2Frun%2Fpg/a%2Fb",
                &[("PGHOST", "/run/pg"), ("PGDATABASE", "a/b")],
            ),
            (
                "postgres:///shop?host=/run/pg",
                &[("PGDATABASE", "shop"), ("PGHOST", "/run/pg")],
            ),
            (
                "postgres://a,[::2]:2,c",
                &[("PGHOST", "a,::2,c"), ("PGPORT", ",2,")],
            ),
            ("postgres://u@", &[("PGUSER", "u")]),
            (
                "postgres://h?ssl=true&",
                &[("PGHOST", "h"), ("PGSSLMODE", "require")],
            ),
        ];
        for (url, expected) in cases {
            let expected = expected
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            assert_eq!(variables(url), expected.collect::<Vec<_>>(), "{url}");
        }
    }

    #[test]
    fn nothing_of_a_password_becomes_a_part_that_is_shown() {
        for url in [
            "postgresql://postgres:pa@ss5@127.0.0.1/db",
            "postgresql://postgres:pa@ss:5@127.0.0.1/db",
            "postgresql://postgres:pa@s/s5@127.0.0.1/db",
            "postgresql://postgres:pa@s?s5@127.0.0.1/db",
            "postgresql://pa/ss5@127.0.0.1/db",
            "postgresql://h/db?user=me@there",
        ] {
            assert_eq!(
                Connection::parse(url.as_bytes()),
                Err(UrlError::At),
                "{url}"
            );
        }
        assert!(UrlError::At.to_string().contains("%40"));
        let escaped = variables("postgresql://a:p%40q@h%40/d%40?application_name=n%40");
        assert_eq!(
            escaped
                .iter()
                .filter(|(_, value)| value.contains('@'))
                .count(),
            4
        );
    }

    #[test]
    fn half_an_escape_and_a_nul_are_refused() {
        for url in ["postgres://h/%4", "postgres://h/%zz", "postgres://h/%00"] {
            assert_eq!(Connection::parse(url.as_bytes()), Err(UrlError::Escape));
        }
        assert_eq!(Connection::parse(b"postgres://h\0"), Err(UrlError::Nul));
    }

    #[test]
    fn what_cannot_be_handed_on_is_refused() {
        let cases = [
            ("shop", UrlError::Scheme),
            ("mysql://h", UrlError::Scheme),
            ("host=h password=p", UrlError::Scheme),
            ("postgres://u:p%@h", UrlError::Escape),
            ("postgres://h/%00", UrlError::Escape),
            ("postgres://h\0", UrlError::Nul),
            ("postgres://[::1", UrlError::Bracket),
            ("postgres://u:pass/word@h/db", UrlError::Port),
            ("postgres://[::1]x", UrlError::Port),
            ("postgres://h?shoe=1", UrlError::Parameter),
            ("postgres://h?sslmode", UrlError::NoValue),
        ];
        for (url, error) in cases {
            assert_eq!(Connection::parse(url.as_bytes()), Err(error), "{url}");
        }
    }

    #[test]
    fn a_host_in_the_url_is_not_led_elsewhere_by_what_is_inherited() {
        let withheld = |url: &[u8]| Connection::parse(url).unwrap().withheld().count();
        assert_eq!(withheld(b"postgres://h"), 2);
        assert_eq!(withheld(b"postgres:///shop"), 0);
        let own = Connection::parse(b"postgres://h?hostaddr=::1").unwrap();
        assert_eq!(own.withheld().collect::<Vec<_>>(), OTHER_WAYS);
        assert_eq!(own.variable("PGHOSTADDR").unwrap(), "::1");
    }

    #[test]
    fn what_is_shown_of_a_connection_holds_no_secret() {
        let connection = Connection::parse(b"postgres://me:secret@h").unwrap();
        assert_eq!(
            format!("{connection:?}"),
            r#"{"PGUSER", "PGPASSWORD", "PGHOST"}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(url in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Connection::parse(&url);
            let _ = Connection::parse(&[b"postgres://".as_slice(), &url].concat());
        }
    }
}
