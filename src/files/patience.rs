//! How often the same is tried, and after how long.

use std::time::Duration;

use super::client::Server;
use super::progress::Progress;
use super::trouble::Trouble;

/// Tries that lead to nothing, one after the other.
const MAX_TRIES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What is left of it. Whatever is achieved gives all of it back.
#[derive(Debug, Default)]
pub struct Patience {
    spent: u32,
}

impl Patience {
    pub fn renew(&mut self) {
        self.spent = 0;
    }

    /// Waits, each time twice as long, if `trouble` may pass and there is any left; else it is the error. Who was never
    /// reached is not waited for.
    pub async fn wait(&mut self, trouble: Trouble, server: &Server, progress: &Progress) -> Result<(), Trouble> {
        if !server.was_reached() {
            return Err(trouble);
        }
        let said = trouble.to_string();
        let time = self.next(trouble)?;
        progress.say(&format!("{said}; trying again in {} s", time.as_secs_f32()));
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// How long to wait.
    fn next(&mut self, trouble: Trouble) -> Result<Duration, Trouble> {
        self.spent += 1;
        match self.spent {
            1..MAX_TRIES if trouble.may_pass() => Ok((FIRST_WAIT * 2_u32.pow(self.spent - 1)).min(LONGEST_WAIT)),
            _ => Err(trouble),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_but_not_for_ever() {
        let broken = || Trouble::Broken("x".to_owned());
        let mut patience = Patience::default();
        let waits: Vec<_> = (1..MAX_TRIES).filter_map(|_| patience.next(broken()).ok()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000, 8000, 8000].map(Duration::from_millis));
        assert!(patience.next(broken()).is_err());
        patience.renew();
        assert!(patience.next(broken()).is_ok());
        assert!(patience.next(Trouble::of(StatusCode::NOT_FOUND, b"")).is_err());
    }
}
