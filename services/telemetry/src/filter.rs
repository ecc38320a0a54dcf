//! Parses the filter of the log.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Applies unless the filter says otherwise. The libraries of HTTP/2 and TLS warn about each fault
/// of a client or an endpoint, but a warning must mean a fault of Outrider.
const BASE: &str = "h2=error,rustls=error";

/// Parses a filter. Returns the reason if the text is not one.
pub(crate) fn parse(text: &str) -> Result<EnvFilter, String> {
    check_words(text)?;
    // If there are two directives for a target, the later one applies.
    EnvFilter::try_new(format!("{BASE},{text}")).map_err(|error| error.to_string())
}

/// Refuses a single word that is not a level. The library would take it for a target, and log
/// nothing but events of that target.
fn check_words(text: &str) -> Result<(), String> {
    let words = directives(text);
    let mut words = words.iter().copied().map(str::trim).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err("it is empty; \"off\" logs nothing".to_owned());
    }
    // The library splits at these commas too, and only reports an invalid directive.
    if let Some(word) = words.clone().find(|word| word.contains(',')) {
        return Err(format!(
            "\"{word}\" has a comma within brackets: name one field in each directive"
        ));
    }
    match words.find(|word| {
        !word.contains(['=', '[', ']', '{', '}']) && word.parse::<LevelFilter>().is_err()
    }) {
        None => Ok(()),
        Some(word) => {
            let levels = "off, error, warn, info, debug, trace";
            Err(format!("\"{word}\" is neither a level ({levels}) nor TARGET=LEVEL"))
        }
    }
}

/// Splits a filter into directives at commas, except commas within brackets.
fn directives(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_target() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,outrider_worker=debug",
            "outrider_gateway=trace",
            "warn,[hop{a=1}]=info",
            "[{a}]=info,[{b}]=info",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("verbose", "\"verbose\" is neither"),
            ("info,outrider_worker", "outrider_worker"),
            ("", "empty"),
            (" , ", "empty"),
            ("info,[{a,b,c}]=info", "\"[{a,b,c}]=info\" has a comma within brackets"),
            ("[{a,b", "\"[{a,b\" has a comma within brackets"),
        ] {
            let refused = parse(bad).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    /// If the library accepts them one day, `check_words` need not refuse them.
    #[test]
    fn the_library_takes_no_comma_within_brackets() {
        assert!(EnvFilter::try_new("[{a,b,c}]=info").is_err());
        assert!(EnvFilter::try_new("[{a}]=info,[{b}]=info").is_ok());
    }

    #[test]
    fn libraries_of_protocols_are_silent_below_error_unless_they_are_named() {
        let warns = |text: &str| {
            let subscriber = tracing_subscriber::registry().with(parse(text).unwrap());
            tracing::subscriber::with_default(subscriber, || {
                assert!(tracing::enabled!(target: "h2::server", Level::ERROR), "{text}");
                assert!(tracing::enabled!(target: "outrider_gateway", Level::WARN), "{text}");
                assert!(!tracing::enabled!(target: "rustls::common_state", Level::WARN), "{text}");
                tracing::enabled!(target: "h2::server", Level::WARN)
            })
        };
        for (text, expected) in [
            ("info", false),
            ("info,outrider_gateway=debug", false),
            ("trace", false),
            ("info,h2=warn", true),
            ("h2::server=debug,info", true),
        ] {
            assert_eq!(warns(text), expected, "{text}");
        }
        assert!(parse("no=level=at=all").is_err());
    }
}
