//! Reads a page of the documentation as a list of steps. The marks are described in
//! docs/testing.md.

use anyhow::{Context, Result, bail, ensure};

/// What to do with one block, in the order of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line of the block or of the mark.
    pub line: usize,
    /// The action.
    pub action: Action,
    /// The block, or the text of the mark itself.
    pub text: String,
}

/// What a block is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Commands that succeed.
    Run,
    /// Commands, one of which fails with this code.
    Exits(i32),
    /// Commands that are repeated until they print one of these texts.
    Until(Vec<String>),
    /// Commands that keep running. They have started when they print one of these texts.
    Background(Vec<String>),
    /// Commands that keep running, line by line. Each is ended when it has printed one of these
    /// texts.
    InTurn(Vec<String>),
    /// Not run, for this reason.
    Skip(String),
    /// Written to a file.
    File(String),
    /// The output of the commands before it, with `…` for any text.
    Shows,
    /// Not on the page: commands that create what the next block needs.
    Before,
    /// Not on the page: ends everything in the background.
    Stop,
}

/// The languages of blocks with commands.
const SHELLS: [&str; 3] = ["sh", "bash", "console"];

/// Returns the steps of a page.
pub fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut mark: Option<Action> = None;
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let at = || format!("line {number}");
        if let Some(comment) = line.strip_prefix("<!-- ") {
            let mut comment = comment.to_owned();
            while !comment.trim_end().ends_with("-->") {
                let (_, more) =
                    lines.next().with_context(|| format!("{}: a comment without end", at()))?;
                comment.push('\n');
                comment.push_str(more);
            }
            ensure!(mark.is_none(), "{}: the mark before has no block", at());
            match action(comment.trim_end().trim_end_matches("-->").trim()).with_context(at)? {
                (Action::Before, text) => {
                    steps.push(Step { line: number, action: Action::Before, text })
                }
                (Action::Stop, text) => {
                    steps.push(Step { line: number, action: Action::Stop, text })
                }
                (other, _) => mark = Some(other),
            }
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let mut block = String::new();
            loop {
                let (_, line) =
                    lines.next().with_context(|| format!("{}: a block without end", at()))?;
                if line.trim() == "```" {
                    break;
                }
                block.push_str(line.get(indent..).unwrap_or_default());
                block.push('\n');
            }
            add(&mut steps, mark.take(), language.trim(), number, block);
        } else {
            ensure!(
                mark.is_none() || line.trim().is_empty(),
                "{}: the mark before has no block",
                at()
            );
        }
    }
    ensure!(mark.is_none(), "the last mark has no block");
    Ok(steps)
}

fn add(steps: &mut Vec<Step>, mark: Option<Action>, language: &str, line: usize, block: String) {
    let shell = SHELLS.contains(&language);
    let action = match mark {
        Some(action) => action,
        None if shell => Action::Run,
        None => return,
    };
    if language != "console" {
        steps.push(Step { line, action, text: block });
        return;
    }
    // Typed lines have a prompt, and printed lines have none.
    let typed = |line: &&str| line.starts_with("$ ");
    let commands = block.lines().filter(typed).map(|line| format!("{}\n", &line[2..])).collect();
    let printed: String =
        block.lines().filter(|line| !typed(line)).map(|line| format!("{line}\n")).collect();
    steps.push(Step { line, action, text: commands });
    if !printed.trim().is_empty() {
        steps.push(Step { line, action: Action::Shows, text: printed });
    }
}

/// Returns the action of a mark, and the mark's own text.
fn action(comment: &str) -> Result<(Action, String)> {
    let (word, rest) = comment.split_once(':').unwrap_or((comment, ""));
    let rest = rest.trim();
    let action = match (word.trim(), rest) {
        ("not run", reason) if !reason.is_empty() => Action::Skip(reason.to_owned()),
        ("file", name) if !name.is_empty() => Action::File(name.to_owned()),
        ("before", script) if !script.is_empty() => Action::Before,
        ("shows", "") => Action::Shows,
        ("stop", "") => Action::Stop,
        ("run", how) => match how.split_once(' ').unwrap_or((how, "")) {
            ("background", texts) => Action::Background(quoted(texts)?),
            ("until", _) => Action::Until(quoted(how)?),
            ("in", texts) if texts.starts_with("turn") => Action::InTurn(quoted(texts)?),
            ("exits", code) => Action::Exits(code.trim().parse().context("an exit code")?),
            _ => bail!("no such way to run: {how:?}"),
        },
        _ => bail!("no such mark: {comment:?}"),
    };
    Ok((action, rest.to_owned()))
}

/// Returns the texts in double quotes.
fn quoted(text: &str) -> Result<Vec<String>> {
    let texts: Vec<_> = text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    ensure!(!texts.is_empty(), "until what? {text:?} quotes nothing");
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_steps_by_their_marks() {
        let page = "# A\n\n```sh\na\n```\n\n```json\n{}\n```\n<!-- run: background until \"up\" or \
            \"ready\" -->\n```bash\nb &\n```\n\
                    <!-- shows -->\n```json\n{…}\n```\n<!-- before: c\nd -->\n<!-- not run: it \
                    takes hours -->\n\n```sh\ne\n```\n\
                    1. x\n   ```console\n   $ f\n   g\n   ```\n";
        let steps = steps(page).unwrap();
        let all: Vec<_> =
            steps.iter().map(|step| (step.action.clone(), step.text.as_str())).collect();
        assert_eq!(
            all,
            [
                (Action::Run, "a\n"),
                (Action::Background(vec!["up".into(), "ready".into()]), "b &\n"),
                (Action::Shows, "{…}\n"),
                (Action::Before, "c\nd"),
                (Action::Skip("it takes hours".into()), "e\n"),
                (Action::Run, "f\n"),
                (Action::Shows, "g\n"),
            ]
        );
        for bad in [
            "<!-- sing -->\n```sh\n```",
            "<!-- shows -->\ntext",
            "```sh\n",
            "<!-- run: until x -->\n```sh\n```",
        ] {
            assert!(super::steps(bad).is_err(), "{bad}");
        }
    }
}
