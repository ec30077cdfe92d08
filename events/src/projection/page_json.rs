//! Pages as services hand them to each other over HTTP: an object for each row, its columns by name.
//!
//! A reader of another release skips columns that it does not know and takes blanks for those that it is not told.

use serde_json::{Map, Value as Json, json};

use crate::projection::{Entry, OwnerError, Page, Shape, Value};

impl Page {
    /// `{"rows": [{"<key>": …, "version": …, "deleted": …, "<column>": …}, …], "more": …}`
    pub fn to_json(&self, shape: &Shape) -> Json {
        let rows: Vec<Json> = self.entries.iter().map(|entry| row(shape, entry)).collect();
        json!({ "rows": rows, "more": self.more })
    }

    /// The page that [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`OwnerError::Invalid`]: it is no page of this shape.
    pub fn from_json(shape: &Shape, bytes: &[u8]) -> Result<Self, OwnerError> {
        let invalid = |what: String| OwnerError::Invalid(format!("a page of {}: {what}", shape.name));
        let page: Json = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let rows = page.get("rows").and_then(Json::as_array).ok_or_else(|| invalid("it has no rows".to_owned()))?;
        let more = page.get("more").and_then(Json::as_bool);
        let entries = rows.iter().map(|row| entry(shape, row).map_err(invalid)).collect::<Result<_, _>>()?;
        Ok(Self { entries, more: more.ok_or_else(|| invalid("it does not say whether there are more".to_owned()))? })
    }
}

fn row(shape: &Shape, entry: &Entry) -> Json {
    let mut row = Map::new();
    row.insert(shape.key.to_owned(), Json::from(entry.key.as_str()));
    row.insert("version".to_owned(), Json::from(entry.version));
    row.insert("deleted".to_owned(), Json::from(entry.deleted));
    for (column, value) in shape.columns.iter().zip(&entry.fields) {
        let value = match value {
            Value::Null => Json::Null,
            Value::Text(text) => Json::from(text.as_str()),
            Value::Number(number) => Json::from(*number),
        };
        row.insert(column.name.to_owned(), value);
    }
    Json::Object(row)
}

fn entry(shape: &Shape, row: &Json) -> Result<Entry, String> {
    let wrong = |name: &str| format!("`{name}` is wrong in {row}");
    let key = row.get(shape.key).and_then(Json::as_str).ok_or_else(|| wrong(shape.key))?;
    let version = row.get("version").and_then(Json::as_i64).ok_or_else(|| wrong("version"))?;
    let deleted = row.get("deleted").and_then(Json::as_bool).ok_or_else(|| wrong("deleted"))?;
    let fields = shape.columns.iter().map(|column| match row.get(column.name) {
        None => Ok(column.blank()),
        Some(Json::Null) => Ok(Value::Null),
        Some(Json::String(text)) if column.is_text => Ok(Value::Text(text.clone())),
        Some(Json::Number(number)) if !column.is_text => {
            number.as_i64().map(Value::Number).ok_or_else(|| wrong(column.name))
        }
        Some(_) => Err(wrong(column.name)),
    });
    Ok(Entry { key: key.to_owned(), version, deleted, fields: fields.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Column;

    const SHAPE: Shape = Shape {
        name: "notes",
        sql: "",
        key: "id",
        columns: &[Column::text("body"), Column::number("size")],
        filters: &[],
    };

    #[test]
    fn a_page_comes_back_as_it_was() {
        let fields = vec!["b\u{0}\"".into(), Value::Number(i64::MIN)];
        let live = Entry { key: "a".to_owned(), version: i64::MAX, deleted: false, fields };
        let fields = vec![Value::Null, Value::Null];
        let gone = Entry { key: "\u{e9}".to_owned(), version: -3, deleted: true, fields };
        for page in [Page { entries: vec![live, gone], more: true }, Page { entries: Vec::new(), more: false }] {
            assert_eq!(Page::from_json(&SHAPE, page.to_json(&SHAPE).to_string().as_bytes()), Ok(page));
        }
    }

    #[test]
    fn other_releases_columns_are_skipped_and_blank() {
        let page = br#"{"rows": [{"id": "a", "version": 1, "deleted": false, "colour": "red"}], "more": false}"#;
        let page = Page::from_json(&SHAPE, page).expect("a page");
        assert_eq!(page.entries[0].fields, ["".into(), Value::Null]);
    }

    #[test]
    fn what_is_no_page_is_refused_and_says_where() {
        for (text, place) in [
            ("", "EOF"),
            ("[]", "no rows"),
            (r#"{"rows": []}"#, "more"),
            (r#"{"rows": [3], "more": false}"#, "`id`"),
            (r#"{"rows": [{"id": "a", "version": "1", "deleted": false}], "more": false}"#, "`version`"),
            (r#"{"rows": [{"id": "a", "version": 1}], "more": false}"#, "`deleted`"),
            (r#"{"rows": [{"id": "a", "version": 1, "deleted": false, "body": 1}], "more": false}"#, "`body`"),
            (r#"{"rows": [{"id": "a", "version": 1, "deleted": false, "size": 1.5}], "more": false}"#, "`size`"),
        ] {
            let refused = Page::from_json(&SHAPE, text.as_bytes()).expect_err(text).to_string();
            assert!(refused.contains("notes") && refused.contains(place), "{refused}");
        }
    }
}
