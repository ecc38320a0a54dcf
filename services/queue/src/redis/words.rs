//! The server's own words: cleaned for display, with what they mean for the operator.

use ::redis::{ErrorKind, RedisError};

/// The longest text that is shown, in bytes.
const LONGEST: usize = 200;
/// After this text, a server quotes the arguments of a command, which may contain a password.
const ARGUMENTS: &str = ", with args beginning with";
/// The text by which servers name the place in a script, before or after the message.
const PLACE: &str = "@user_script:";

/// The code with which Outrider's scripts report that a command was refused after they had written.
/// The name of the command and the server's message follow.
const HALFWAY: &str = "HALFWAY";

/// Messages of a server that grants too few rights or lacks a command.
const REFUSALS: [&str; 10] = [
    "NOPERM",
    "NOAUTH",
    "WRONGPASS",
    "AuthenticationFailed",
    "no permissions to",
    "can't run this command",
    "unknown command",
    "unknown redis command",
    "unknown subcommand",
    "ACL failure",
];

/// Messages about states of a server that prevent the work, with their meaning.
pub(super) const STATES: [(&str, &str); 10] = [
    ("OOM", "its memory is full"),
    ("READONLY", "it is a replica: queue.url must lead to the master"),
    ("MISCONF", "it cannot write to its disk"),
    ("NOREPLICAS", "too few replicas are connected to it"),
    ("LOADING", "it is loading its data"),
    ("MASTERDOWN", "it is a replica whose master is gone"),
    ("CLUSTERDOWN", "its cluster lacks a node or slots"),
    ("MOVED", "the slot is on another node of the cluster: set queue.cluster"),
    ("ASK", "the slot is moving to another node"),
    ("TRYAGAIN", "the slot is moving to another node"),
];

/// Returns the server's message, or the kind of failure.
pub(super) fn words_of(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        // These name an address.
        (Some(code @ ("MOVED" | "ASK")), _) => code.to_owned(),
        (Some(HALFWAY), Some(detail)) => {
            sanitized(detail.split_once(' ').map_or("", |(_, words)| words))
        }
        (Some(code), Some(detail)) => sanitized(&format!("{code} {detail}")),
        (Some(code), None) => sanitized(code),
        (None, Some(detail)) => sanitized(detail),
        (None, None) => error.category().to_owned(),
    }
}

/// Cleans a server's message for display: no arguments of commands, no places in scripts, no
/// control characters, a bounded length.
pub(super) fn sanitized(words: &str) -> String {
    let words = words.split(ARGUMENTS).next().unwrap_or_default();
    let mut words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Redis 7 and Valkey name the script after the message.
    if let Some(at) = words.rfind(" script: ").filter(|at| words[*at..].contains(PLACE)) {
        words.truncate(at);
    }
    // Redis 6 puts the script and the line before the message.
    if let Some(at) = words.find("Error running script (call to ")
        && let Some(length) = words[at..].find("): ")
    {
        words.replace_range(at..at + length + 3, "");
    }
    while let Some(at) = words.find(PLACE) {
        let rest = words[at + PLACE.len()..]
            .trim_start_matches(|c: char| c == ' ' || c == ':' || c.is_ascii_digit());
        let end = words.len() - rest.len();
        words.replace_range(at..end, "");
    }
    words.truncate(words.floor_char_boundary(LONGEST));
    words.trim().to_owned()
}

/// Whether the server refuses this permanently, because a right or a command is missing.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || are_refusal(&text_of(error))
}

fn are_refusal(words: &str) -> bool {
    let words = words.to_lowercase();
    REFUSALS.iter().any(|sign| words.contains(&sign.to_lowercase()))
}

/// Returns what is refused, if the message says so for any command.
pub(super) fn right_in(words: &str) -> Option<&'static str> {
    let has = |sign: &str| words.contains(sign);
    if has("NOAUTH") || has("WRONGPASS") {
        Some("auth")
    } else if has("access one of the keys") || has("access a key") {
        Some("keys")
    } else {
        None
    }
}

fn text_of(error: &RedisError) -> String {
    format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default())
}

/// Returns the command that was refused after a script had written.
pub(super) fn halfway(error: &RedisError) -> Option<String> {
    let detail = error.detail().filter(|_| error.code() == Some(HALFWAY))?;
    detail.split(' ').next().map(str::to_lowercase)
}

/// Returns the line of a script that failed, if the server says so.
pub(super) fn line_of(error: &RedisError) -> Option<usize> {
    let text = error.detail()?;
    let digits = text.rsplit(PLACE).next().filter(|rest| rest.len() < text.len())?.trim_start();
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Returns what to do about the failure, if the server's message is a known one.
pub(super) fn advice(command: Option<&str>, words: &str) -> Option<String> {
    let has = |sign: &str| words.to_lowercase().contains(sign);
    if let Some((_, state)) =
        STATES.iter().find(|(code, _)| words.split([' ', '-']).any(|word| word == *code))
    {
        return Some((*state).to_owned());
    }
    if !are_refusal(words) && command != Some("auth") {
        return None;
    }
    let advice = if has("unknown") {
        "Outrider needs the command under its own name (docs/operations.md)".to_owned()
    } else if command == Some("auth") || has("noauth") || has("wrongpass") || has("authentication")
    {
        "look at the user and the password of queue.url".to_owned()
    } else if has("channel") {
        "grant the user the channel &PREFIX:changes (docs/operations.md)".to_owned()
    } else if has(" key") {
        "grant the user the keys ~{PREFIX:*}:* (docs/operations.md)".to_owned()
    } else if command == Some("select") || has("select") || has("database") {
        "grant the user +select and the database, or use database 0 (docs/operations.md)".to_owned()
    } else {
        let right =
            command.map_or_else(|| "what it lacks".to_owned(), |command| format!("+{command}"));
        format!("grant the user {right} (docs/operations.md)")
    };
    Some(advice)
}

/// Combines the command, the server's message, and what to do.
pub(super) fn explain(command: Option<&str>, words: &str, refused: bool) -> String {
    let shown = command.map(|command| match command {
        "keys" => "the right to the keys".to_owned(),
        command => command.replace('|', " ").to_uppercase(),
    });
    let what = match (shown, refused) {
        (Some(shown), true) => format!("{shown} is refused: "),
        (Some(shown), false) => format!("{shown} failed: "),
        (None, true) => "it is refused: ".to_owned(),
        (None, false) => String::new(),
    };
    let advice = advice(command, words).map_or_else(String::new, |advice| format!(": {advice}"));
    format!("{what}\"{words}\"{advice}")
}

#[cfg(test)]
mod tests {
    use super::{super::error::tests::error, *};

    #[test]
    fn words_are_shown_without_places_in_scripts() {
        let six = "ERR Error running script (call to f_48a2): @user_script:75: @user_script: 75: \
            The user executing the \
                   script can't run this command or subcommand";
        let seven = "ERR The user executing the script can't run this command or subcommand \
            script: 0beec7b5, on \
                     @user_script:75.";
        for answer in [six, seven] {
            let error = error(answer);
            assert_eq!(
                words_of(&error),
                "ERR The user executing the script can't run this command or subcommand"
            );
            assert!(is_refusal(&error));
            assert_eq!(line_of(&error), Some(75));
        }
        let valkey = "ERR ACL failure in script: User outrider has no permissions to run the \
            'xadd' command script: 1f, on \
                      @user_script:83.";
        assert_eq!(
            words_of(&error(valkey)),
            "ERR ACL failure in script: User outrider has no permissions to run the 'xadd' command"
        );
        assert_eq!(line_of(&error("NOPERM no permissions to run the 'get' command")), None);
    }

    #[test]
    fn no_argument_and_no_address_is_shown() {
        let hello = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'outrider' \
            'hunter2'";
        assert_eq!(words_of(&error(hello)), "ERR unknown command 'HELLO'");
        assert_eq!(words_of(&error("MOVED 17 10.0.0.1:6379")), "MOVED");
        let long = format!("ERR {}\u{7}{}", "x".repeat(150), "\u{e9}".repeat(200));
        let shown = sanitized(&long);
        assert!(shown.len() <= LONGEST && !shown.contains('\u{7}'), "{shown}");
    }

    #[test]
    fn what_failed_halfway_is_named_by_the_script() {
        let error = error(
            "HALFWAY XADD @user_script: 83: The user executing the script can't run this command \
                or subcommand",
        );
        assert_eq!(halfway(&error).as_deref(), Some("xadd"));
        assert_eq!(
            words_of(&error),
            "The user executing the script can't run this command or subcommand"
        );
        assert!(is_refusal(&error));
    }

    #[test]
    fn strange_words_do_no_harm() {
        for words in [
            "",
            "@user_script:",
            " script: @user_script:",
            "Error running script (call to ",
            "): @user_script: : :",
        ] {
            assert!(!sanitized(words).contains(PLACE), "{words}");
        }
    }

    #[test]
    fn states_are_no_refusals() {
        for (code, _) in STATES {
            assert!(!is_refusal(&error(&format!("{code} something"))), "{code}");
        }
        assert!(is_refusal(&error("ERR unknown command 'XADD', with args beginning with: 'k'")));
        assert!(is_refusal(&error(
            "ERR Unknown Redis command called from script script: 1f, on @user_script:3."
        )));
        assert!(!is_refusal(&error("NOSCRIPT No matching script. Please use EVAL.")));
        assert!(!is_refusal(&error("NOGROUP No such key")));
    }

    #[test]
    fn each_refusal_has_its_advice() {
        let keys =
            "NOPERM this user has no permissions to access one of the keys used as arguments";
        for (command, words, expected) in [
            ("evalsha", keys, "~{PREFIX:*}:*"),
            (
                "publish",
                "NOPERM this user has no permissions to access one of the channels used as \
                    arguments",
                "&PREFIX:changes",
            ),
            ("select", "ERR this user has no permissions to run the 'select' command", "+select"),
            ("hlen", "NOAUTH Authentication required.", "queue.url"),
            ("xadd", "ERR unknown command 'XADD'", "its own name"),
            (
                "xadd",
                "ERR The user executing the script can't run this command or subcommand",
                "+xadd",
            ),
        ] {
            let advice = advice(Some(command), words).expect("advice");
            assert!(advice.contains(expected), "{words}: {advice}");
        }
        assert_eq!(advice(Some("xadd"), "ERR syntax error"), None);
    }
}
