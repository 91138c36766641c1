//! What the engine notes on the way (`tracing` events), as lines on standard error: warnings
//! always, and with `-vv` what is only of interest when something is odd. Spans are not used.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

use super::{Level, json, text};

/// Shows events.
#[derive(Debug)]
pub(crate) struct Notes {
    most: tracing::Level,
    json: bool,
}

impl Notes {
    /// Listens from now on.
    pub(crate) fn listen(level: Level, json: bool) {
        let most = match level {
            Level::Everything => tracing::Level::DEBUG,
            _ => tracing::Level::WARN,
        };
        // Somebody else listens already in a test that runs the program twice.
        let _ = tracing::subscriber::set_global_default(Self { most, json });
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most && metadata.target().starts_with("strongroom")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.most))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let line = words.line();
        text::to_stderr(&match *event.metadata().level() {
            tracing::Level::ERROR | tracing::Level::WARN if self.json => json::error(&line, "", ""),
            tracing::Level::ERROR | tracing::Level::WARN => format!("warning: {line}"),
            _ => format!("note: {line}"),
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's message, and its other fields behind it.
#[derive(Debug, Default)]
struct Words {
    message: String,
    fields: String,
}

impl Words {
    fn line(&self) -> String {
        let all = match self.fields.as_str() {
            "" => self.message.clone(),
            fields => format!("{}: {fields}", self.message),
        };
        text::safe(&all)
    }

    fn put(&mut self, field: &Field, value: &dyn fmt::Display) {
        if field.name() != "message" && !self.fields.is_empty() {
            self.fields.push_str(", ");
        }
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            "error" => write!(self.fields, "{value}"),
            name => write!(self.fields, "{name} {value}"),
        };
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, &crate::error::story(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_message_and_what_went_with_it() {
        let words = Words {
            message: "what was seen could not be remembered".to_owned(),
            fields: "open /x\u{1b}: permission denied".to_owned(),
        };
        assert_eq!(
            words.line(),
            "what was seen could not be remembered: open /x\\x1b: permission denied"
        );
    }
}
