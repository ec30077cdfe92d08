//! What serde's derives do not say about the JSON form. `build.rs` puts these on the fields.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The number that an enum's name reads as when this program does not know it, as protobuf's own libraries have it. Like
/// any other unknown number it is a value to be told apart and no error: a newer publisher stops no older reader.
pub const UNKNOWN_NAME: i32 = -1;

/// The value, or the place of what is wrong and what it is.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, (String, serde_json::Error)> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let Object(message) = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| (error.path().to_string(), error.into_inner()))?;
    reader.end().map_err(|error| (".".to_owned(), error))?;
    Ok(message)
}

/// A message read from a JSON object. Derived readers would also take an array of its fields in order, and so `[]` for a
/// message with nothing set.
struct Object<M>(M);

impl<'de, M: Deserialize<'de>> Deserialize<'de> for Object<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<M>(PhantomData<M>);

        impl<'de, M: Deserialize<'de>> Visitor<'de> for Fields<M> {
            type Value = M;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<M, A::Error> {
                M::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

pub(crate) fn optional_object<'de, D, M>(deserializer: D) -> Result<Option<M>, D::Error>
where
    D: Deserializer<'de>,
    M: Deserialize<'de>,
{
    Ok(Option::<Object<M>>::deserialize(deserializer)?.map(|object| object.0))
}

pub(crate) fn objects<'de, D, M>(deserializer: D) -> Result<Vec<M>, D::Error>
where
    D: Deserializer<'de>,
    M: Deserialize<'de>,
{
    Ok(Vec::<Object<M>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// A field of the enum `E`: its name, or its number where the name is not known. Reads both.
pub(crate) struct Named<E>(PhantomData<E>);

impl<E> Named<E>
where
    E: TryFrom<i32> + Into<i32> + Serialize + DeserializeOwned,
{
    pub(crate) fn serialize<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        match E::try_from(*number) {
            Ok(known) => known.serialize(serializer),
            Err(_) => serializer.serialize_i32(*number),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        deserializer.deserialize_any(Self(PhantomData))
    }
}

impl<E: Into<i32> + DeserializeOwned> Visitor<'_> for Named<E> {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an enum's name or number")
    }

    fn visit_str<Error: serde::de::Error>(self, name: &str) -> Result<i32, Error> {
        let known = E::deserialize(StrDeserializer::<serde::de::value::Error>::new(name));
        Ok(known.map_or(UNKNOWN_NAME, Into::into))
    }

    fn visit_i64<Error: serde::de::Error>(self, number: i64) -> Result<i32, Error> {
        i32::try_from(number).map_err(|_| Error::custom(format_args!("{number} is no enum's number")))
    }

    fn visit_u64<Error: serde::de::Error>(self, number: u64) -> Result<i32, Error> {
        i32::try_from(number).map_err(|_| Error::custom(format_args!("{number} is no enum's number")))
    }
}
