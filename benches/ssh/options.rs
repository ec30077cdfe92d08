//! What the command line asks for.

pub const HELP: &str = "\
cargo xtask bench ssh [ARGS]

  --mib N        MiB that go each way in one run, 1024 unless told
  --rounds N     rounds, each with every way once, 5 unless told
  --logins N     logins whose set-up is timed, by each way, 100 unless told
  --sessions N   connections held at once, 1000 unless told; 0: none
  --cipher NAME  as OpenSSH calls it, aes128-gcm@openssh.com unless told
  --help         this text
";

const MAX_SESSIONS: usize = 10_000;

#[derive(Debug)]
pub struct Options {
    pub transfer_mib: usize,
    pub rounds: usize,
    pub logins: usize,
    pub sessions: usize,
    pub cipher: String,
}

impl Options {
    /// None if help is asked for.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = words.into_iter();
        let cipher = "aes128-gcm@openssh.com".to_owned();
        let mut options = Self { transfer_mib: 1024, rounds: 5, logins: 100, sessions: 1000, cipher };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--mib" => options.transfer_mib = number(&word, &value()?, 1)?,
                "--rounds" => options.rounds = number(&word, &value()?, 1)?,
                "--logins" => options.logins = number(&word, &value()?, 1)?,
                "--sessions" => options.sessions = number(&word, &value()?, 0)?,
                "--cipher" => options.cipher = value()?,
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => return Err(format!("`{word}` is not understood")),
            }
        }
        if options.sessions > MAX_SESSIONS {
            return Err(format!("--sessions: {} is more than {MAX_SESSIONS}", options.sessions));
        }
        Ok(Some(options))
    }
}

fn number(name: &str, text: &str, least: usize) -> Result<usize, String> {
    let number = text.replace('_', "").parse::<usize>().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{name}: `{text}` is no number from {least} on"))
}
