//! The JSON Schema of routes.yaml, for editors: completion and checks while typing.

use schemars::generate::SchemaSettings;

use super::written::FileForm;

/// The schema, as JSON Schema 2020-12.
///
/// Looser than [`super::parse`] where a schema cannot follow; never stricter.
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<FileForm>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::parse;

    fn at(pointer: &str) -> serde_json::Value {
        schema().pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {:#}", schema())).clone()
    }

    #[test]
    fn names_what_is_required_and_nothing_else() {
        assert_eq!(at("/title"), "routes.yaml");
        assert_eq!(at("/required"), serde_json::json!(["routes"]));
        assert_eq!(at("/properties/routes/maxItems"), 100_000);
        assert_eq!(at("/$defs/RouteForm/required"), serde_json::json!([]));
        assert_eq!(at("/$defs/RouteForm/additionalProperties"), false);
        assert_eq!(at("/$defs/TargetForm/required"), serde_json::json!(["target"]));
        assert_eq!(at("/$defs/RouteForm/properties/protocol/enum"), serde_json::json!(["h1", "h2c", "https"]));
    }

    #[test]
    fn describes_every_key() {
        let definitions = at("/$defs");
        let forms = definitions.as_object().expect("definitions are an object");
        assert_eq!(forms.len(), 7, "{:?}", forms.keys());
        for (name, form) in forms {
            for (key, property) in form["properties"].as_object().expect("a form has properties") {
                assert!(property["description"].is_string(), "{name}.{key}: {property:#}");
            }
        }
    }

    /// What the schema gives as an example or a default, the parser takes.
    #[test]
    fn shows_examples_that_are_right() {
        let route = at("/$defs/RouteForm/properties");
        let mut count = 0;
        for (key, property) in route.as_object().expect("a form has properties") {
            let examples = property["examples"].as_array().into_iter().flatten();
            for example in examples.chain(property.get("default")) {
                let target = if key == "target" { String::new() } else { "\"target\": \"a:80\", ".to_owned() };
                let yaml = format!("routes: [{{{target}\"{key}\": {example}}}]");
                parse(&yaml, "f").unwrap_or_else(|errors| panic!("{yaml}: {errors:?}"));
                count += 1;
            }
        }
        assert!(count > 10, "only {count} examples");
    }
}
