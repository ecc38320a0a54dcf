//! Fills in what a page leaves open, from what was printed before: `ep_…` is the last endpoint that
//! was printed on the page.

use std::collections::BTreeMap;

/// The prefixes of ids, tokens and secrets, each with the minimum length of the rest.
const KINDS: [(&str, usize); 10] = [
    ("org_", 26),
    ("prj_", 26),
    ("key_", 26),
    ("ep_", 26),
    ("sub_", 26),
    ("evt_", 26),
    ("dlv_", 26),
    ("att_", 26),
    ("ork_", 60),
    ("whsec_", 32),
];

/// The last text of each kind.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<&'static str, String>);

impl Memory {
    /// Remembers the ids, tokens and secrets in a text. Later ones replace earlier ones.
    pub fn learn(&mut self, text: &str) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/=".contains(&byte);
        for (start, _) in text.char_indices() {
            let before = start.checked_sub(1).map(|before| text.as_bytes()[before]);
            if before.is_some_and(|before| word(before) && before != b'=') {
                continue;
            }
            for (prefix, least) in KINDS {
                let Some(rest) = text[start..].strip_prefix(prefix) else { continue };
                let length = rest.bytes().take_while(|byte| word(*byte)).count();
                if length >= least {
                    self.0.insert(prefix, text[start..start + prefix.len() + length].to_owned());
                }
            }
        }
    }

    /// Returns the text with everything filled in, or an error that names what is not known.
    pub fn fill(&self, text: &str) -> anyhow::Result<String> {
        let mut filled = text.to_owned();
        for (prefix, _) in KINDS {
            let open = format!("{prefix}…");
            if filled.contains(&open) {
                let known = self
                    .0
                    .get(prefix)
                    .ok_or_else(|| anyhow::anyhow!("nothing was printed yet that is a {open}"))?;
                filled = filled.replace(&open, known);
            }
        }
        anyhow::ensure!(!filled.contains('…'), "leaves open what nothing can fill: {filled}");
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_of_a_kind_counts() {
        let mut memory = Memory::default();
        memory.learn(
            "\"endpoint_id\":\"ep_01h455vb4pex5vsknk084sn02q\", \
            step_01h455vb4pex5vsknk084sn02q api_key_id",
        );
        memory.learn("A=ep_01h455vb4pex5vsknk084sn02r\n");
        assert_eq!(
            memory.fill("get ep_… 'ep_…'").unwrap(),
            "get ep_01h455vb4pex5vsknk084sn02r 'ep_01h455vb4pex5vsknk084sn02r'"
        );
        assert!(memory.fill("get evt_…").is_err() && memory.fill("…").is_err());
    }
}
