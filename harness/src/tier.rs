//! The tiers: independent ways of knowing what a command started, and one of knowing by whom.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// One way of knowing what a command started, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// A pid namespace of its own, whose end ends everything inside, also when the gate is killed. Changes the numbers that
    /// processes see, which some programs do not bear: only on request. Needs root, or a user namespace.
    Namespace,
    /// A cgroup v2 of its own: every descendant, whatever it does. Needs the right to create a cgroup.
    Cgroup,
    /// Orphaned descendants come back to the gate. Needs nothing.
    Subreaper,
    /// A variable in the environment that descendants inherit. Needs nothing; sees processes of the same user.
    Token,
    /// The kernel's record of forks: who started what, also when the parents are gone. Never says who is left. Needs root, or
    /// Linux 6.6; not in a container.
    Events,
}

impl Tier {
    /// All, strongest first.
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Cgroup, Self::Subreaper, Self::Token, Self::Events];

    /// Whether it has to be asked for.
    #[must_use]
    pub fn is_opt_in(self) -> bool {
        self == Self::Namespace
    }

    /// Whether it shows who is left. Without any such tier, no verdict is clean.
    #[must_use]
    pub fn detects(self) -> bool {
        self != Self::Events
    }

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Cgroup => "cgroup",
            Self::Subreaper => "subreaper",
            Self::Token => "token",
            Self::Events => "events",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|tier| tier.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|tier| tier.name()).collect();
            format!("unknown tier `{text}`; there are {}", names.join(", "))
        })
    }
}

impl Serialize for Tier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A tier that is not in force, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingTier {
    /// Which.
    pub tier: Tier,
    /// Why, for people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for tier in Tier::ALL {
            assert_eq!(tier.name().parse(), Ok(tier));
        }
        assert!(
            "Cgroup".parse::<Tier>().unwrap_err().contains("namespace, cgroup, subreaper, token, events")
        );
    }
}
