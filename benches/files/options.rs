//! What the command line asks for.

pub const HELP: &str = "\
cargo xtask bench files [ARGS]

  --files N        files of 1 KiB in one run, 10,000 unless told
  --mib N          MiB of the large file, 1024 unless told
  --rounds N       rounds, each with every way once, 3 unless told
  --connections N  over which the small files go at once, 8 unless told
  --full           also the memory that is held during an upload of 10 GiB
  --memory-mib N   of that many MiB instead
  --help           this text

It needs nginx, with its module for WebDAV (Debian package: nginx-light), and room for thrice the large file.
";

#[derive(Debug)]
pub struct Options {
    pub files: usize,
    pub large_mib: usize,
    pub rounds: usize,
    pub connections: usize,
    /// Of the upload during which memory is watched; none: it is not.
    pub memory_mib: Option<usize>,
}

impl Options {
    /// None if help is asked for.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = words.into_iter();
        let mut options = Self { files: 10_000, large_mib: 1024, rounds: 3, connections: 8, memory_mib: None };
        while let Some(word) = words.next() {
            let mut value = || number(&word, &words.next().ok_or_else(|| format!("{word} lacks its value"))?);
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--files" => options.files = value()?,
                "--mib" => options.large_mib = value()?,
                "--rounds" => options.rounds = value()?,
                "--connections" => options.connections = value()?,
                "--full" => options.memory_mib = Some(10 * 1024),
                "--memory-mib" => options.memory_mib = Some(value()?),
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => return Err(format!("`{word}` is not understood")),
            }
        }
        Ok(Some(options))
    }
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    let number = text.replace(['_', ','], "").parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: `{text}` is no number from 1 on"))
}
