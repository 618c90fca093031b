//! Shell globs as Python's `fnmatch` has them: `*`, `?`, `[abc]`, `[a-c]`, `[!abc]`.

/// Whether a name is to be matched rather than looked up.
pub(super) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// A glob that was read.
pub(super) struct Glob(Vec<Piece>);

enum Piece {
    Any,
    One,
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            at += 1;
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::One,
                '[' => match class(&chars[at..]) {
                    Some((piece, length)) => {
                        at += length;
                        piece
                    }
                    None => Piece::Char('['),
                },
                c => Piece::Char(*c),
            });
        }
        Self(pieces)
    }

    /// Whether the whole name matches. Time grows with the product of the lengths at most.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // Where to go on after the last `*`, should it take one character more.
        let mut retry: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    piece += 1;
                    retry = Some((piece, at));
                    continue;
                }
                Some(one) if one.takes(name[at]) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let Some((after, from)) = retry else { return false };
            (piece, at) = (after, from + 1);
            retry = Some((after, from + 1));
        }
        self.0[piece..].iter().all(|piece| matches!(piece, Piece::Any))
    }
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// A class after its `[`, and how many characters it takes. None where it isn't closed.
fn class(chars: &[char]) -> Option<(Piece, usize)> {
    let negated = chars.first() == Some(&'!');
    let start = usize::from(negated);
    // A `]` that comes first is one of the characters.
    let close = start + 1 + chars.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let mut ranges = Vec::new();
    let mut at = start;
    while at < close {
        match chars.get(at..at + 3) {
            Some([low, '-', high]) if at + 2 < close => {
                ranges.push((*low, *high));
                at += 3;
            }
            _ => {
                ranges.push((chars[at], chars[at]));
                at += 1;
            }
        }
    }
    Some((Piece::Class { negated, ranges }, close + 1))
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn globs_match_as_fnmatch_does() {
        for (glob, name, matches) in [
            ("web*", "web1", true),
            ("web*", "we", false),
            ("*", "", true),
            ("*1*", "web1.lan", true),
            ("w?b1", "web1", true),
            ("w?b1", "wb1", false),
            ("web[12]", "web2", true),
            ("web[1-3]", "web4", false),
            ("web[!12]", "web3", true),
            ("web[!12]", "web1", false),
            ("a[]]b", "a]b", true),
            ("a[b", "a[b", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Glob::new(glob).matches(name), matches, "{glob} {name}");
        }
    }
}
