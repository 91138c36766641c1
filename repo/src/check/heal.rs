//! Putting right what is damaged or missing although its content is known: log entries, by their
//! other copies or by their twin in a segment, and the copies of the configuration. Only bytes that
//! were verified against the chain, or that this client works with, are written.

use super::objects::read_log;
use crate::{
    backend::{BackendErrorKind, ConfigCopy, ObjectName},
    error::Result,
    format::frame::{self, FrameKind},
    limits::MAX_META_LEN,
    repository::Repository,
};

impl Repository {
    /// Puts right what can be: the objects that are whole again.
    ///
    /// # Errors
    /// The log cannot be verified, or the store failed.
    pub fn heal(&self) -> Result<Vec<ObjectName>> {
        let mut healed = Vec::new();
        for copy in [ConfigCopy::First, ConfigCopy::Second] {
            if self.heal_config(copy)? {
                healed.push(ObjectName::Config(copy));
            }
        }
        let entries = read_log(self)?.heal()?;
        healed.extend(entries.into_iter().map(ObjectName::Log));
        Ok(healed)
    }

    /// Whether a copy of the configuration was put right. One that says something else, or that a
    /// newer version wrote, is left as it is: somebody should see it.
    fn heal_config(&self, copy: ConfigCopy) -> Result<bool> {
        let name = ObjectName::Config(copy);
        let whole = frame::encode(FrameKind::Config, self.config_inner(), &[])?;
        match self.backend().read_all(&name, u64::from(MAX_META_LEN) * 4) {
            Ok(object) => match frame::decode(FrameKind::Config, &object) {
                Ok(framed) if framed.intact || framed.inner != self.config_inner() => {
                    return Ok(false);
                }
                Err(error) if error.is_newer() => return Ok(false),
                _ => {}
            },
            // A disk that cannot read it any more may still take it elsewhere.
            Err(error) if error.is_not_found() || error.kind == BackendErrorKind::Io => {}
            Err(error) => return Err(error.into()),
        }
        self.backend().replace_verified(&name, &whole)?;
        Ok(true)
    }
}
