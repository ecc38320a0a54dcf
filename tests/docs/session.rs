//! Runs a page in its own home directory. Each command runs in the environment that the commands
//! before it left.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    cluster::binary,
    leash::Directory,
    logs, ports,
    process::{Process, Signal},
    servers::{Postgres, Redis},
    wait::wait_blocking,
};

use crate::{
    memory::Memory,
    page::{Action, Step},
};

/// No command of a page takes longer.
const BOUND: Duration = Duration::from_secs(60);

/// Comes before each script: restores the variables that the script before it exported, and its
/// working directory.
const PROLOGUE: &str = "set -e -o pipefail -a\n[ ! -f \"$STATE\" ] || . \"$STATE\"\n";
/// Comes after each script.
const EPILOGUE: &str = "\n__code=$?; [ $__code = 0 ] || exit $__code\n{ export -p | grep -v ' \
    -[a-z]*r'; declare -f; printf 'cd %q\\n' \"$PWD\"; } > \"$STATE\"\n";

/// `outrider dev` takes its port from the command line only. Everything else runs as the page says.
const WRAPPER: &str = "#!/usr/bin/env bash\nif [[ $1 == dev && \" $* \" != *' --listen '* ]]; then \
    set -- \"$@\" --listen \"$DEV_LISTEN\"; \
                       fi\nexec \"$OUTRIDER_BIN\" \"$@\"\n";

/// The first command of the README builds a release. The binary is already there, so this runs it
/// with the remaining arguments. No page builds anything else.
const CARGO: &str = "#!/usr/bin/env bash\nif [[ \"$1 $2 $3\" == 'run --release --' ]]; then exec \
    outrider \"${@:4}\"; fi\n\
                     echo \"only 'cargo run --release -- …' is run of a page, not 'cargo $*'\" \
                     >&2\nexit 1\n";

/// The session of a page.
pub struct Session {
    home: Directory,
    memory: Memory,
    /// Texts of the page, with what they are replaced by here: ports, servers, system directories.
    replaced: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    background: Vec<Process>,
    last: String,
    scripts: usize,
    _servers: Option<(Postgres, Redis)>,
}

impl Session {
    /// Creates an empty home directory, and starts PostgreSQL and Redis if the page names them.
    pub fn new(page: &str) -> Result<Self> {
        let home = Directory::create()?;
        let mut replaced = Vec::new();
        let mut gateway = String::new();
        for port in ["8080", "9090", "9000", "3000"] {
            let free = ports::free().to_string();
            if port == "8080" {
                gateway = format!("127.0.0.1:{free}");
            }
            replaced.push((port.to_owned(), free));
        }
        let servers = match page.contains("postgres://") {
            true => Some((Postgres::start()?, Redis::start()?)),
            false => None,
        };
        if let Some((postgres, redis)) = &servers {
            replaced.push((
                "postgres://outrider:PASSWORD@db.internal:5432/outrider".to_owned(),
                postgres.create_database()?,
            ));
            replaced.push(("redis://redis.internal:6379/0".to_owned(), redis.url()));
        }
        replaced.push(("/etc/outrider".to_owned(), home.path().join("etc").display().to_string()));
        fs::create_dir(home.path().join("etc"))?;
        let path = tools(&home)?;
        let at = |name: &str| home.path().join(name).display().to_string();
        let variables = [
            ("PATH", path),
            ("HOME", at("")),
            ("STATE", at(".state")),
            ("CHECKOUT", crate::repository().display().to_string()),
            ("DEV_LISTEN", gateway.clone()),
            ("OUTRIDER_BIN", binary()?.display().to_string()),
            ("OUTRIDER_GATEWAY_LISTEN", gateway.clone()),
            ("OUTRIDER_OPERATIONS_LISTEN", format!("127.0.0.1:{}", ports::free())),
            ("OUTRIDER_SERVER", format!("http://{gateway}")),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        let (memory, background) = (Memory::default(), Vec::new());
        Ok(Self {
            home,
            memory,
            replaced,
            variables,
            background,
            last: String::new(),
            scripts: 0,
            _servers: servers,
        })
    }

    /// Runs one step.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        match &step.action {
            Action::Skip(_) => {}
            Action::Stop => self.stop()?,
            Action::File(name) => {
                let text = self.filled(&step.text)?;
                let path = self.home.path().join(self.filled(name)?);
                fs::write(path, text)?;
            }
            Action::Shows => shows(&self.last, &step.text)?,
            Action::Run => self.run(&step.text, 0)?,
            Action::Exits(code) => self.run(&step.text, *code)?,
            Action::Before => {
                let shown = self.last.clone();
                self.run(&step.text, 0)?;
                self.last = shown;
            }
            Action::Until(texts) => {
                let end = std::time::Instant::now() + BOUND;
                loop {
                    self.run(&step.text, 0)?;
                    if texts.iter().any(|text| self.last.contains(text.as_str())) {
                        break;
                    }
                    ensure!(
                        std::time::Instant::now() < end,
                        "does not print one of {texts:?} but:\n{}",
                        self.last
                    );
                }
            }
            Action::Background(texts) => {
                let process = self.begin(&step.text, texts)?;
                self.background.push(process);
            }
            Action::InTurn(texts) => {
                let text = step.text.replace("\\\n", " ");
                for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    let mut process = self.begin(line, texts).with_context(|| line.to_owned())?;
                    end(&mut process)?;
                }
            }
        }
        Ok(())
    }

    /// Returns what the last commands printed.
    pub fn printed(&self) -> &str {
        &self.last
    }

    /// Ends everything in the background, the latest first.
    pub fn stop(&mut self) -> Result<()> {
        while let Some(mut process) = self.background.pop() {
            end(&mut process)?;
        }
        Ok(())
    }

    fn run(&mut self, text: &str, code: i32) -> Result<()> {
        let mut process = self.start(text, EPILOGUE)?;
        let status = process.wait(BOUND);
        self.last = fs::read_to_string(process.log())?;
        let status = status.with_context(|| self.last.clone())?;
        ensure!(status.code() == Some(code), "ended with {status}, printing:\n{}", self.last);
        self.memory.learn(&self.last);
        Ok(())
    }

    fn begin(&mut self, text: &str, texts: &[String]) -> Result<Process> {
        let mut process = self.start(text, "")?;
        let what = format!("it prints one of {texts:?}");
        let printed = wait_blocking(&what, BOUND, || {
            let ended = process.ended().is_some();
            let printed = fs::read_to_string(process.log()).unwrap_or_default();
            let found = texts.iter().any(|text| printed.contains(text.as_str()));
            (found || ended).then_some((printed, found))
        });
        let (printed, found) = printed.with_context(|| logs::tail(process.log(), 40))?;
        ensure!(found, "ended without one of {texts:?}:\n{printed}");
        self.memory.learn(&printed);
        self.last = printed;
        Ok(process)
    }

    fn start(&mut self, text: &str, epilogue: &str) -> Result<Process> {
        self.scripts += 1;
        let script = self.home.path().join(format!(".script-{}", self.scripts));
        let text = self.filled(text)?;
        // A server replaces the shell, so that it receives signals.
        let text = match epilogue {
            "" => last_line_replaces_the_shell(&text),
            _ => text,
        };
        fs::write(&script, format!("{PROLOGUE}{text}{epilogue}"))?;
        let mut command = Command::new("bash");
        command.arg(script).current_dir(self.home.path()).env_clear();
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Process::start(&format!("step-{}", self.scripts), command, &self.home)
    }

    fn filled(&self, text: &str) -> Result<String> {
        let mut text = self.memory.fill(text)?;
        for (from, to) in &self.replaced {
            text = replace_words(&text, from, to);
        }
        Ok(text)
    }
}

/// Sends SIGTERM, and expects an orderly end.
fn end(process: &mut Process) -> Result<()> {
    if process.ended().is_none() {
        process.signal(Signal::Terminate)?;
    }
    let status = process.wait(BOUND)?;
    ensure!(status.success(), "ended with {status}:\n{}", logs::tail(process.log(), 40));
    Ok(())
}

/// Creates a directory of commands that take precedence over the system's, and returns the search
/// path that begins with it.
fn tools(home: &Directory) -> Result<String> {
    let bin = home.path().join(".bin");
    fs::create_dir(&bin)?;
    for (name, script) in [("outrider", WRAPPER), ("cargo", CARGO)] {
        let path = bin.join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let tools = std::env::var_os("OUTRIDER_TEST_TOOLS").map(PathBuf::from).unwrap_or_default();
    let own = [bin, tools.join("bin"), tools.join("node_modules/.bin")];
    let path = std::env::var("PATH").context("PATH")?;
    let own = own
        .iter()
        .map(|path: &PathBuf| path.as_path())
        .map(Path::display)
        .map(|path| path.to_string());
    Ok(own.chain([path]).collect::<Vec<_>>().join(":"))
}

fn last_line_replaces_the_shell(text: &str) -> String {
    let text = text.trim_end();
    match text.rsplit_once('\n') {
        Some((before, last)) if !before.ends_with('\\') => format!("{before}\nexec {last}"),
        Some(_) => text.to_owned(),
        None => format!("exec {text}"),
    }
}

/// Replaces a text wherever no letter or digit is beside it.
fn replace_words(text: &str, from: &str, to: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let beside = before.chars().last().is_some_and(char::is_alphanumeric)
            || after.starts_with(char::is_alphanumeric);
        replaced.push_str(before);
        replaced.push_str(if beside { from } else { to });
        rest = after;
    }
    replaced + rest
}

/// Fails unless the text contains the parts between the `…`, in order, with any white space.
fn shows(printed: &str, expected: &str) -> Result<()> {
    let bare = |text: &str| {
        text.chars().filter(|character| !character.is_whitespace()).collect::<String>()
    };
    let (printed_bare, mut from) = (bare(printed), 0);
    for part in bare(expected).split('…').filter(|part| !part.is_empty()) {
        let found = printed_bare[from..].find(part);
        from +=
            found.with_context(|| format!("{part} is not printed, but:\n{printed}"))? + part.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_compared_loosely() {
        let printed = "{\"event_id\":\"evt_1\",\"duplicate\":false}\n";
        shows(printed, "{\"event_id\": \"evt_…\", \"duplicate\": false}\n").unwrap();
        assert!(shows(printed, "{\"event_id\": \"evt_…\", \"duplicate\": true}").is_err());
        assert!(shows(printed, "{… \"event_id\" … \"event_id\"}").is_err());
    }

    #[test]
    fn ports_are_words() {
        assert_eq!(replace_words("a:8080/8080 18080 8080", "8080", "1"), "a:1/1 18080 1");
        assert_eq!(last_line_replaces_the_shell("a\nb c\n"), "a\nexec b c");
    }
}
