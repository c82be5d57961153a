//! LVM's text format: sections in braces, and assignments of numbers, strings and lists.
//!
//! ```text
//!   vg0 {                                   # a section
//!     seqno = 3
//!     status = ["RESIZEABLE", "READ"]
//!     logical_volumes { root { … } }
//!   }
//! ```
//! Source: `lvm.conf(5)`, section "SYNTAX", and what `vgcfgbackup` writes.

use std::collections::BTreeMap;

/// How deep sections lie in each other: a segment of a volume of a group is at 4.
const MAX_DEPTH: usize = 8;
/// How many values and sections a text may have: dozens each for thousands of volumes.
const MAX_ITEMS: usize = 1 << 18;

/// What stands behind an equals sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Text(String),
    List(Vec<Self>),
    /// A number with a sign or a point: nothing that is read here has one.
    Other,
}

/// The contents of a pair of braces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    values: BTreeMap<String, Value>,
    sections: BTreeMap<String, Self>,
}

impl Section {
    /// Reads a whole text.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parser = Parser { rest: text, items: 0 };
        parser.section(0)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.values.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of words; a missing one is empty, and none where it is something else.
    pub(super) fn words(&self, name: &str) -> Option<Vec<&str>> {
        match self.values.get(name) {
            None => Some(Vec::new()),
            Some(Value::List(values)) => {
                let words = values.iter().map(|value| match value {
                    Value::Text(word) => Some(word.as_str()),
                    _ => None,
                });
                words.collect()
            }
            Some(_) => None,
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        self.sections.get(name)
    }

    pub(super) const fn sections(&self) -> &BTreeMap<String, Self> {
        &self.sections
    }
}

struct Parser<'t> {
    rest: &'t str,
    items: usize,
}

impl<'t> Parser<'t> {
    fn section(&mut self, depth: usize) -> Result<Section, &'static str> {
        let mut section = Section::default();
        if depth > MAX_DEPTH {
            return Err("its sections lie in each other too deeply");
        }
        loop {
            self.skip();
            match self.rest.chars().next() {
                None if depth == 0 => return Ok(section),
                Some('}') if depth > 0 => {
                    self.take("}");
                    return Ok(section);
                }
                None | Some('}') => return Err("its braces do not match"),
                Some(_) => {}
            }
            let name = self.name()?;
            self.skip();
            let is_new = if self.take("{") {
                let inner = self.section(depth.checked_add(1).ok_or("it is too deep")?)?;
                section.sections.insert(name, inner).is_none()
            } else if self.take("=") {
                let value = self.value(0)?;
                section.values.insert(name, value).is_none()
            } else {
                return Err("a name stands alone");
            };
            if !is_new {
                return Err("a name stands twice");
            }
            self.count()?;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, &'static str> {
        self.count()?;
        self.skip();
        if self.take("\"") {
            return self.string().map(Value::Text);
        }
        if !self.take("[") {
            return self.number();
        }
        if depth > 1 {
            return Err("its lists lie in each other too deeply");
        }
        let mut values = Vec::new();
        loop {
            self.skip();
            if self.take("]") {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth.checked_add(1).ok_or("it is too deep")?)?);
            self.skip();
            if !self.take(",") && !self.rest.starts_with(']') {
                return Err("a list has no end");
            }
        }
    }

    /// The rest of a string, whose quotes and backslashes are escaped.
    fn string(&mut self) -> Result<String, &'static str> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => text.push(chars.next().ok_or("a string has no end")?),
                Some(char) => text.push(char),
                None => return Err("a string has no end"),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }

    fn number(&mut self) -> Result<Value, &'static str> {
        let digits = self.word(|char| char.is_ascii_digit() || matches!(char, '.' | '-' | '+'));
        match digits.parse() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) if digits.is_empty() => Err("a value is missing"),
            Err(_) => Ok(Value::Other),
        }
    }

    fn name(&mut self) -> Result<String, &'static str> {
        let name = self.word(|char| char.is_ascii_alphanumeric() || "_-+.#/".contains(char));
        if name.is_empty() { Err("a name is missing") } else { Ok(name.to_owned()) }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|char| !belongs(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn take(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn count(&mut self) -> Result<(), &'static str> {
        self.items = self.items.checked_add(1).filter(|&items| items <= MAX_ITEMS).ok_or("it is too long")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sections_and_values_are_read() {
        let text = "a {\n# a comment { \"\n\tn = 12\t# another\n\ts = \"q\\\"\\\\#\"\nl = [\"x\", \"y\", 3]\n\
                    e = []\nf = 1.5\nm = -1\nb-c { n=7 } }\nversion = 1";
        let parsed = Section::parse(text).unwrap();
        assert_eq!(parsed.number("version"), Some(1));
        let a = parsed.section("a").unwrap();
        assert_eq!((a.number("n"), a.text("s")), (Some(12), Some("q\"\\#")));
        assert_eq!(a.words("l"), None);
        assert_eq!((a.words("e"), a.words("none")), (Some(vec![]), Some(vec![])));
        assert_eq!((a.value("f"), a.value("m")), (Some(&Value::Other), Some(&Value::Other)));
        assert_eq!(a.section("b-c").unwrap().number("n"), Some(7));
        assert_eq!(a.sections().len(), 1);
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in [
            "a {",
            "}",
            "a",
            "a = ",
            "a = [1",
            "a = [1 2]",
            "a = \"x",
            "a = 1\na = 2",
            "a {} a {}",
            "= 1",
            "a = [[[[1]]]]",
        ] {
            assert!(Section::parse(text).is_err(), "{text}");
        }
        assert!(Section::parse(&"a{".repeat(100_000)).is_err());
        assert!(Section::parse(&format!("a = [{}]", "1,".repeat(MAX_ITEMS))).is_err());
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(text in "[a-c{}=\\[\\]\",#\\\\ \n0-9é.-]{0,80}") {
            let _ = Section::parse(&text);
        }
    }
}
