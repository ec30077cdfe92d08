use proptest::prelude::*;

use super::*;

fn path(text: &str) -> FilePath {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn what_people_call_files_is_kept() {
    let (longest_part, deepest) = ("x".repeat(255), ["d"; 32].join("/"));
    let longest = [&*"x".repeat(255); 4].join("/") + "/";
    let longest = &longest[..1023].to_owned();
    for text in [
        "a",
        "a/b.txt",
        "...",
        "..a",
        "a..",
        ".hidden",
        "a b",
        "%2e%2e",
        "c:",
        "con",
        "a:b*c?d\"e<f>g|h",
        "~",
        "-rf",
        "naïve café.txt",
        "文件/資料.pdf",
        "файл",
        "👩\u{200d}👩\u{200d}👧.png",
        "❤\u{fe0f}\u{200d}🔥",
        "می\u{200c}خواهم.txt",
        "क्\u{200d}ष",
        "½ and 1⁄2",
        "ﬁle",
        "ａ",
        &longest_part,
        &deepest,
        longest,
    ] {
        assert_eq!(path(text).as_str(), text);
    }
}

#[test]
fn one_name_is_one_sequence_of_bytes() {
    for (one, other) in [("cafe\u{301}", "café"), ("\u{212b}", "å".to_uppercase().as_str()), ("\u{1100}\u{1161}", "가")]
    {
        assert_eq!(path(one), path(other));
        assert_eq!(path(one).as_str(), other);
    }
}

#[test]
fn what_is_refused_is_told_with_its_reason() {
    let (long_part, long) = ("x".repeat(256), ["x"; 600].join("/"));
    let deep = ["d"; 33].join("/");
    for (text, reason) in [
        ("", "is empty"),
        ("/etc/passwd", "relative"),
        ("a//b", "is empty"),
        ("a/", "is empty"),
        (".", "names no file"),
        ("a/../../b", "the part \"..\" names no file"),
        ("a/./b", "names no file"),
        ("a\0b", "control character"),
        ("a\nb", "\\u{a}"),
        ("a\u{7f}", "control character"),
        ("a\u{85}b", "control character"),
        ("..\\..\\windows", "backslash"),
        (&long_part, "255 bytes"),
        (&long, "1024 bytes"),
        (&deep, "32 parts"),
        ("invoice\u{202e}fdp.exe", "\\u{202e}"),
        ("a\u{2066}b", "cannot be seen"),
        ("ad\u{200b}min", "cannot be seen"),
        ("\u{feff}a", "cannot be seen"),
        ("a\u{ad}b", "cannot be seen"),
        ("a\u{3164}b", "cannot be seen"),
        ("a\u{ffff}", "cannot be seen"),
        ("a\u{200d}b", "joiner"),
        ("é\u{200c}é", "joiner"),
        ("\u{200d}", "joiner"),
        ("👩\u{200d}\u{200d}👧", "joiner"),
        ("👩\u{200d}", "joiner"),
        (" a", "white space"),
        ("a /b", "white space"),
        ("a\u{a0}", "white space"),
        ("\u{3000}a", "white space"),
        ("a\u{ff0f}b", "reads as"),
        ("\u{ff0e}\u{ff0e}", "reads as"),
        ("\u{2024}\u{2024}", "reads as"),
        ("\u{2025}", "reads as"),
        ("a\u{ff3c}b", "reads as"),
    ] {
        let error = text.parse::<FilePath>().expect_err(text);
        assert_eq!(error.field, "path");
        assert!(error.rule.contains(reason), "{text:?}: {error}");
        assert!(!error.rule.contains(is_invisible) && error.rule.len() < 600, "{error}");
    }
}

#[test]
fn a_path_knows_where_it_is() {
    let deep = path("a/b/c");
    assert_eq!((deep.name(), deep.parent()), ("c", Some(path("a/b"))));
    assert_eq!(deep.ancestors().collect::<Vec<_>>(), [path("a"), path("a/b")]);
    assert_eq!((path("a").parent(), path("a").ancestors().count()), (None, 0));
    assert!(deep.is_within(&path("a")) && deep.is_within(&deep));
    assert!(!path("ab").is_within(&path("a")) && !path("a").is_within(&deep));
    assert_eq!(deep.moved(&path("a"), &path("x/y")), Ok(path("x/y/b/c")));
    assert_eq!(deep.moved(&deep, &path("z")), Ok(path("z")));
    assert!(deep.moved(&path("b"), &path("z")).is_err());
    assert_eq!(FilePath::join(Some(&deep), "d"), Ok(path("a/b/c/d")));
    assert_eq!(FilePath::join(None, "d"), Ok(path("d")));
    assert!(FilePath::join(Some(&deep), "..").is_err());
}

proptest! {
    #[test]
    fn whatever_is_taken_is_plain_and_reads_back(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn so_is_what_looks_like_a_path(parts in prop::collection::vec("[a\u{301}é .\u{200d}👩/\\\\\u{ff0f}\u{2024}]{0,5}", 1..6)) {
        check(&parts.join("/"))?;
    }
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let Ok(path) = text.parse::<FilePath>() else { return Ok(()) };
    prop_assert_eq!(path.as_str().parse(), Ok(path.clone()), "normalizing once is enough");
    let spelt_apart: String = path.as_str().nfd().collect();
    prop_assert_eq!(spelt_apart.parse(), Ok(path.clone()), "another spelling is the same name");
    prop_assert!(path.as_str().len() <= FilePath::MAX_BYTES);
    for part in path.as_str().split('/') {
        prop_assert!(!part.is_empty() && part != "." && part != ".." && part.len() <= 255);
        prop_assert!(!part.contains(['\\', '\0']) && part.trim() == part);
    }
    let rebuilt = FilePath::join(path.parent().as_ref(), path.name());
    prop_assert_eq!(rebuilt, Ok(path));
    Ok(())
}
