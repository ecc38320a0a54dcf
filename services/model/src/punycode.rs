//! International names in punycode (UTS #46).

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// What is wrong with a name that is not a valid international name.
pub(crate) const INVALID: &str = "has a host name that is not a valid international name; write \
    it in lower case or in punycode";

/// A name that is not a valid international name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{INVALID}")]
pub(crate) struct InvalidName;

/// A name in punycode. Refused unless turning it back gives what was given, so that no character is
/// taken for one that looks alike.
pub(crate) fn to_ascii(given: &str) -> Result<Cow<'_, str>, InvalidName> {
    let punycode = given
        .split('.')
        .any(|label| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")));
    if given.is_ascii() && !punycode {
        return Ok(Cow::Borrowed(given));
    }
    let lower: String = given.chars().map(|character| character.to_ascii_lowercase()).collect();
    let ascii = Uts46::new()
        .to_ascii(
            lower.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(|_| InvalidName)?
        .into_owned();
    let (back, valid) =
        Uts46::new().to_unicode(ascii.as_bytes(), AsciiDenyList::URL, Hyphens::CheckFirstLast);
    if valid.is_err() {
        return Err(InvalidName);
    }
    // Labels that came as punycode stay so; all others must come back unchanged.
    let same = lower.split('.').count() == back.split('.').count()
        && lower
            .split('.')
            .zip(back.split('.').zip(ascii.split('.')))
            .all(|(given, (back, ascii))| given == back || given == ascii);
    if same { Ok(Cow::Owned(ascii)) } else { Err(InvalidName) }
}
