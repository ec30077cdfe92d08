//! `edd completions` and `edd man`, generated from the command line's own definition.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Code, Outcome};

pub fn completions(shell: Shell) -> Outcome {
    clap_complete::generate(shell, &mut Cli::command(), "edd", &mut std::io::stdout());
    Ok(Code::Ok)
}

pub fn man(dir: Option<&Path>) -> Outcome {
    match dir {
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
        }
    }
    Ok(Code::Ok)
}
