//! Ansible's and Jinja's filters, where the engine's own differ or are missing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind};
use sha2::Digest;

use super::python::{Json, known, string, text};

pub(super) fn add(env: &mut Environment<'static>) {
    types(env);
    texts(env);
    json(env);
    paths(env);
    env.add_filter(
        "ternary",
        |value: &Jinja, yes: Jinja, no: Jinja, null: Option<Jinja>| -> Result<Jinja, Error> {
            Ok(match null {
                Some(null) if known(value)?.is_none() => null,
                _ if known(value)?.is_true() => yes,
                _ => no,
            })
        },
    );
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("mandatory", |value: Jinja, message: Option<&str>| -> Result<Jinja, Error> {
        if value.is_undefined() {
            return Err(wrong(message.unwrap_or("a mandatory variable is not defined")));
        }
        Ok(value)
    });
    env.add_filter("extract", |key: &Jinja, of: &Jinja, more: Option<Jinja>| -> Result<Jinja, Error> {
        let mut value = of.get_item(key)?;
        for key in more.into_iter().flat_map(|more| match more.kind() {
            ValueKind::Seq => more.try_iter().into_iter().flatten().collect::<Vec<_>>(),
            _ => vec![more],
        }) {
            value = value.get_item(&key)?;
        }
        Ok(value)
    });
}

/// The other value may itself be undefined, which is then the answer.
fn default(value: Jinja, more: Rest<ValueOrKwargs>) -> Result<Jinja, Error> {
    let mut more = more.into_values();
    let options = more.pop_if(|last| last.is_kwargs()).map(Kwargs::try_from).transpose()?;
    let named = |name: &str| -> Result<Option<Jinja>, Error> {
        options.as_ref().map_or(Ok(None), |options| options.get(name))
    };
    let (other, lax) = (named("default_value")?, named("boolean")?);
    if let Some(options) = &options {
        options.assert_all_used()?;
    }
    let mut more = more.into_iter();
    let other = more.next().or(other).unwrap_or_else(|| Jinja::from(""));
    let lax = more.next().or(lax).is_some_and(|lax| lax.is_true());
    let missing = value.is_undefined() || lax && !known(&value)?.is_true();
    Ok(if missing { other } else { value })
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn types(env: &mut Environment<'static>) {
    env.add_filter("bool", |value: &Jinja| -> Result<Jinja, Error> {
        Ok(match known(value)?.as_str() {
            Some(text) => {
                Jinja::from(["y", "yes", "on", "1", "true", "t"].contains(&text.to_lowercase().as_str()))
            }
            None if value.is_none() => Jinja::from(()),
            None => Jinja::from(*value == Jinja::from(true) || *value == Jinja::from(1)),
        })
    });
    env.add_filter(
        "int",
        |value: &Jinja, default: Option<i64>, base: Option<u32>, options: Kwargs| -> Result<i64, Error> {
            let default = default.or(options.get("default")?).unwrap_or(0);
            let base = base.or(options.get("base")?).unwrap_or(10);
            options.assert_all_used()?;
            Ok(int(known(value)?, base).unwrap_or(default))
        },
    );
    env.add_filter("float", |value: &Jinja, default: Option<f64>| -> Result<f64, Error> {
        let number = match known(value)?.as_str() {
            Some(text) => text.trim().parse().ok(),
            None => f64::try_from(value.clone()).ok(),
        };
        Ok(number.or(default).unwrap_or(0.0))
    });
    env.add_filter("string", string);
    env.add_filter("type_debug", |value: &Jinja| match value.kind() {
        ValueKind::Bool => "bool",
        ValueKind::String => "str",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::None => "NoneType",
        ValueKind::Map => "dict",
        _ => "list",
    });
}

fn int(value: &Jinja, base: u32) -> Option<i64> {
    if value.kind() == ValueKind::Bool {
        return Some(i64::from(value.is_true()));
    }
    let Some(text) = value.as_str() else {
        let whole = i64::try_from(value.clone()).ok();
        return whole.or_else(|| truncated(f64::try_from(value.clone()).ok()?));
    };
    let text = text.trim().to_lowercase();
    let digits = match base {
        16 => text.strip_prefix("0x"),
        8 => text.strip_prefix("0o"),
        2 => text.strip_prefix("0b"),
        _ => None,
    };
    let whole =
        (2..=36).contains(&base).then(|| i64::from_str_radix(digits.unwrap_or(&text), base).ok()).flatten();
    whole.or_else(|| truncated(text.parse().ok()?))
}

fn truncated(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "its range was looked at")]
    (number.abs() < 9e18).then_some(number as i64)
}

fn texts(env: &mut Environment<'static>) {
    env.add_filter(
        "join",
        |value: &Jinja,
         by: Option<&str>,
         attribute: Option<&str>,
         options: Kwargs|
         -> Result<String, Error> {
            let by = match by {
                Some(by) => by.to_owned(),
                None => options.get::<Option<String>>("d")?.unwrap_or_default(),
            };
            let attribute = match attribute {
                Some(name) => Some(name.to_owned()),
                None => options.get("attribute")?,
            };
            options.assert_all_used()?;
            let mut parts = Vec::new();
            for item in known(value)?.try_iter()? {
                let item = match &attribute {
                    Some(name) => item.get_attr(name)?,
                    None => item,
                };
                parts.push(string(&item)?);
            }
            Ok(parts.join(&by))
        },
    );
    env.add_filter(
        "split",
        |value: &Jinja, by: Option<&str>, most: Option<usize>| -> Result<Vec<String>, Error> {
            let text = string(value)?;
            Ok(match (by, most) {
                (Some(""), _) => return Err(wrong("an empty text splits nothing")),
                (Some(by), Some(most)) => {
                    text.splitn(most.saturating_add(1), by).map(str::to_owned).collect()
                }
                (Some(by), None) => text.split(by).map(str::to_owned).collect(),
                (None, _) => text.split_whitespace().map(str::to_owned).collect(),
            })
        },
    );
    env.add_filter("b64encode", |value: &Jinja| -> Result<String, Error> {
        Ok(STANDARD.encode(string(value)?))
    });
    env.add_filter("b64decode", |value: &Jinja| -> Result<String, Error> {
        let bytes = STANDARD.decode(string(value)?.trim()).map_err(|_| wrong("this is not base 64"))?;
        String::from_utf8(bytes).map_err(|_| wrong("what is in the base 64 is no text"))
    });
    env.add_filter("hash", |value: &Jinja, kind: Option<&str>| -> Result<String, Error> {
        hash(&string(value)?, kind.unwrap_or("sha1"))
    });
    for kind in ["sha1", "md5"] {
        env.add_filter(kind, move |value: &Jinja| -> Result<String, Error> { hash(&string(value)?, kind) });
    }
    env.add_filter("checksum", |value: &Jinja| -> Result<String, Error> { hash(&string(value)?, "sha1") });
    env.add_filter("quote", |value: &Jinja| -> Result<String, Error> { Ok(quote(&string(value)?)) });
    env.add_filter("urlencode", |value: &Jinja| -> Result<String, Error> { Ok(urlencode(&string(value)?)) });
}

fn hash(text: &str, kind: &str) -> Result<String, Error> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(match kind {
        "sha256" => hex(&sha2::Sha256::digest(text)),
        "sha224" => hex(&sha2::Sha224::digest(text)),
        "sha384" => hex(&sha2::Sha384::digest(text)),
        "sha512" => hex(&sha2::Sha512::digest(text)),
        "sha1" => hex(&<sha1::Sha1 as sha1::Digest>::digest(text)),
        "md5" => hex(&<md5::Md5 as md5::Digest>::digest(text)),
        other => return Err(wrong(format!("the hash `{other}` isn't known"))),
    })
}

/// `shlex.quote`
fn quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "@%_-+=:,./".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn urlencode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn json(env: &mut Environment<'static>) {
    env.add_filter("to_json", |value: &Jinja, options: Kwargs| to_json(value, &options, None, false));
    env.add_filter("tojson", |value: &Jinja, options: Kwargs| to_json(value, &options, None, false));
    env.add_filter("to_nice_json", |value: &Jinja, options: Kwargs| to_json(value, &options, Some(4), true));
    env.add_filter("from_json", |value: &Jinja| -> Result<Jinja, Error> {
        let json: serde_json::Value =
            serde_json::from_str(&string(value)?).map_err(|_| wrong("this is not JSON"))?;
        Ok(super::to_jinja(json))
    });
}

fn to_json(value: &Jinja, options: &Kwargs, indent: Option<usize>, sorted: bool) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?.or(indent);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(sorted);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(true);
    options.assert_all_used()?;
    Ok(Json { indent, sort_keys, ascii }.write(&plain(value, 0)?))
}

/// The value as JSON; evaluates what is in it.
fn plain(value: &Jinja, depth: usize) -> Result<serde_json::Value, Error> {
    if depth > 64 {
        return Err(wrong("nested too deep"));
    }
    match known(value)?.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| plain(&item, depth + 1)).collect()
        }
        ValueKind::Map => {
            let field = |key: Jinja| Ok((text(&key), plain(&value.get_item(&key)?, depth + 1)?));
            value.try_iter()?.map(field).collect::<Result<serde_json::Map<_, _>, Error>>().map(Into::into)
        }
        _ => serde_json::to_value(value).map_err(|_| wrong("this is no value of JSON")),
    }
}

fn paths(env: &mut Environment<'static>) {
    env.add_filter("basename", |value: &Jinja| -> Result<String, Error> {
        let path = string(value)?;
        Ok(path.rsplit_once('/').map_or(path.clone(), |(_, name)| name.to_owned()))
    });
    env.add_filter("dirname", |value: &Jinja| -> Result<String, Error> { Ok(dirname(&string(value)?)) });
    env.add_filter("splitext", |value: &Jinja| -> Result<Vec<String>, Error> {
        Ok(splitext(&string(value)?))
    });
    env.add_filter("expanduser", |value: &Jinja| -> Result<String, Error> {
        let path = string(value)?;
        Ok(match (path.strip_prefix('~'), std::env::var("HOME")) {
            (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            _ => path,
        })
    });
    env.add_filter("path_join", |value: &Jinja, more: Rest<Jinja>| -> Result<String, Error> {
        let parts: Vec<String> = match known(value)?.as_str() {
            Some(_) => std::iter::once(value).chain(more.iter()).map(string).collect::<Result<_, _>>()?,
            None => value.try_iter()?.map(|part| string(&part)).collect::<Result<_, _>>()?,
        };
        Ok(parts.into_iter().reduce(join_path).unwrap_or_default())
    });
}

fn join_path(path: String, part: String) -> String {
    match (part.starts_with('/'), path.is_empty() || path.ends_with('/')) {
        (true, _) => part,
        (false, true) => path + &part,
        (false, false) => path + "/" + &part,
    }
}

fn dirname(path: &str) -> String {
    let Some((folder, _)) = path.rsplit_once('/') else { return String::new() };
    let trimmed = folder.trim_end_matches('/');
    if trimmed.is_empty() { format!("{folder}/") } else { trimmed.to_owned() }
}

fn splitext(path: &str) -> Vec<String> {
    let start = path.rfind('/').map_or(0, |at| at + 1);
    let leading = path[start..].bytes().take_while(|byte| *byte == b'.').count();
    match path[start + leading..].rfind('.') {
        Some(dot) => {
            let (stem, suffix) = path.split_at(start + leading + dot);
            vec![stem.to_owned(), suffix.to_owned()]
        }
        None => vec![path.to_owned(), String::new()],
    }
}
