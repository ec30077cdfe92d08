//! Makes Rust of the .proto files: the messages, and the table of events with their subjects.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use heck::{ToShoutySnakeCase, ToUpperCamelCase};
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};

/// A folder of .proto files for every package.
const PACKAGES: [&str; 5] = ["auth", "common", "compute", "gateway", "sfs"];
const METADATA: &str = "common.EventMetadata";
/// Is an integer in JSON, which no derive makes of it.
const TIMESTAMP: &str = "common.Timestamp";

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for package in PACKAGES {
        println!("cargo::rerun-if-changed={package}");
        for entry in fs::read_dir(package)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let pool = compiler.descriptor_pool();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("events.rs"), tables(&pool)?)?;

    let mut config = prost_build::Config::new();
    config.enable_type_names();
    // Its Debug would print the token.
    config.skip_debug([".auth.ValidateTokenRequest"]);
    json(&pool, &mut config);
    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| PACKAGES.contains(&file.package()));
    config.compile_fds(set)?;
    Ok(())
}

fn ours(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> {
    pool.all_messages().filter(|message| PACKAGES.contains(&message.package_name()))
}

/// `x` for the field `x_uid`, beside which stands the number `x_id`.
fn user(field: &FieldDescriptor) -> Option<&str> {
    field.name().strip_suffix("_uid")
}

/// Shapes the JSON: see `encoding.rs` for how it looks.
fn json(pool: &DescriptorPool, config: &mut prost_build::Config) {
    for message in ours(pool).filter(|message| message.full_name() != TIMESTAMP) {
        config.message_attribute(message.full_name(), "#[derive(serde::Serialize, serde::Deserialize)]");
        config.message_attribute(message.full_name(), "#[serde(default)]");
        for field in message.fields() {
            let mut attribute = |text: &str| {
                config.field_attribute(field.full_name(), format!("#[serde({text})]"));
            };
            if let Some(user) = user(&field) {
                attribute(&format!("rename = \"{user}_id\""));
            }
            let uid =
                field.name().strip_suffix("_id").and_then(|user| message.get_field_by_name(&format!("{user}_uid")));
            if let Some(user) = uid.as_ref().and_then(user) {
                attribute(&format!("rename = \"{user}_number\""));
            }
            match field.kind() {
                Kind::Message(inner) if inner.full_name() == TIMESTAMP => {}
                Kind::Message(_) if field.is_list() => attribute("deserialize_with = \"crate::json::objects\""),
                Kind::Message(_) => attribute("deserialize_with = \"crate::json::optional_object\""),
                Kind::Enum(inner) => {
                    let path = format!("crate::{}::{}", inner.package_name(), inner.name().to_upper_camel_case());
                    attribute(&format!("with = \"crate::json::Named::<{path}>\""));
                }
                _ => {}
            }
        }
    }
    for kind in pool.all_enums().filter(|kind| PACKAGES.contains(&kind.package_name())) {
        config.enum_attribute(kind.full_name(), "#[derive(serde::Serialize, serde::Deserialize)]");
        config.enum_attribute(kind.full_name(), "#[serde(rename_all = \"snake_case\")]");
    }
}

/// What `event.rs` and `user.rs` make implementations of: an `events!` and a `users!` with a line a message.
fn tables(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let option = pool.get_extension_by_name("common.subject").ok_or("common/options.proto defines no `subject`")?;
    let (mut events, mut users) = (String::new(), String::new());
    for message in ours(pool) {
        let (package, name) = (message.package_name(), message.name().to_upper_camel_case());
        for field in message.fields() {
            if let Some(user) = user(&field) {
                writeln!(users, "    {package} {name} {user}_uid {user}_id;")?;
            }
        }
        let is_event = message.get_field(1).is_some_and(|field| {
            matches!(field.kind(), Kind::Message(inner) if inner.full_name() == METADATA && field.name() == "metadata")
        });
        let options = message.options();
        let subject = match &*options.get_extension(&option) {
            Value::String(subject) if options.has_extension(&option) && is_event => subject.clone(),
            _ if options.has_extension(&option) => {
                return Err(format!("{}: has a subject, but no metadata in field 1", message.full_name()).into());
            }
            _ if is_event => {
                return Err(format!("{}: an event without `option (common.subject)`", message.full_name()).into());
            }
            _ => continue,
        };
        let id = id(&message, &subject)?.unwrap_or_default();
        writeln!(
            events,
            "    {package} {} {name} {} {subject:?} {id};",
            package.to_shouty_snake_case(),
            message.name()
        )?;
    }
    Ok(format!("events! {{\n{events}}}\n\nusers! {{\n{users}}}\n"))
}

/// The field that the braces of a subject stand for.
fn id(message: &MessageDescriptor, subject: &str) -> Result<Option<String>, String> {
    let Some((_, rest)) = subject.split_once('{') else { return Ok(None) };
    let name = rest.split('}').next().unwrap_or_default();
    let uid = name.strip_suffix("_id").map(|user| format!("{user}_uid"));
    let field = uid.and_then(|uid| message.get_field_by_name(&uid)).or_else(|| message.get_field_by_name(name));
    let field = field.ok_or_else(|| format!("{}: `{subject}` names no field of it", message.full_name()))?;
    Ok(Some(field.name().to_owned()))
}
