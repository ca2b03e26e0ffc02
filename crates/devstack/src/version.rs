//! Versions of servers, as they report them.

use std::fmt;

/// The two leading numbers of a version; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second, or 0 if absent.
    pub minor: u32,
}

impl Version {
    /// Reads the first word of `text` that begins with a number, or with `v` and a number.
    pub fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word
                .trim_start_matches('v')
                .split(|c: char| !c.is_ascii_digit())
                .map(str::parse::<u32>);
            let major = numbers.next()?.ok()?;
            let minor = numbers.next().and_then(Result::ok).unwrap_or(0);
            Some(Self { major, minor })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn versions_are_read_from_what_the_servers_say() {
        assert_eq!(Version::find("nats-server: v2.15.1"), Some(version(2, 15)));
        assert_eq!(
            Version::find("nats-server: v2.15.0-dev"),
            Some(version(2, 15))
        );
        assert_eq!(
            Version::find("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(version(15, 18))
        );
        assert_eq!(
            Version::find("postgres (PostgreSQL) 19devel"),
            Some(version(19, 0))
        );
        assert_eq!(Version::find("postgres (PostgreSQL)"), None);
    }
}
