//! What is wrong with a configuration: every mistake with its line and its cure, as compilers write them.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with one file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Problems {
    /// The file.
    pub file: PathBuf,
    /// Its problems, by line.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and what to write instead.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Line in the file, from 1; `None` if the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong; what to write instead.
    pub message: String,
}

impl fmt::Display for Problems {
    /// One line a problem, as compilers write them: `FILE:LINE: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            match problem.line {
                Some(line) => write!(f, "{}:{line}: {}", self.file.display(), problem.message)?,
                None => write!(f, "{}: {}", self.file.display(), problem.message)?,
            }
        }
        Ok(())
    }
}
