//! What writers that were killed leave in S3: uploads in parts that nobody completes, paid for and in no listing.

use std::time::Duration;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::s3::Bucket;
use super::{BlobId, StorageError};

/// How long a signature is good for: the question is asked at once.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// A page of ListMultipartUploads. What the answer has besides is of no use here.
#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "Upload", default)]
    uploads: Vec<Upload>,
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker", default)]
    next_key: String,
    #[serde(rename = "NextUploadIdMarker", default)]
    next_upload: String,
}

#[derive(Deserialize)]
struct Upload {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
    #[serde(rename = "Initiated")]
    begun_at: String,
}

/// Aborts the uploads of blobs that began `idle` ago or before: so many.
pub(super) async fn sweep(bucket: &Bucket, idle: Duration) -> Result<u64, StorageError> {
    let mut aborted = 0;
    let (mut key, mut id) = (String::new(), String::new());
    loop {
        let page = listing(bucket, &key, &id).await?;
        for upload in page.uploads.iter().filter(|upload| is_blob(bucket, upload)) {
            if is_idle(upload, idle)? {
                let path = Path::parse(&upload.key).map_err(StorageError::away)?;
                match bucket.objects.abort_multipart(&path, &upload.id).await {
                    Ok(()) => aborted += 1,
                    // Its writer was faster.
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(StorageError::general(error)),
                }
            }
        }
        if !page.is_truncated || (&page.next_key, &page.next_upload) == (&key, &id) {
            return Ok(aborted);
        }
        (key, id) = (page.next_key, page.next_upload);
    }
}

/// The uploads after the one called `id` of the object `key`.
async fn listing(bucket: &Bucket, key: &str, id: &str) -> Result<Listing, StorageError> {
    let mut query = vec![("uploads", ""), ("prefix", bucket.prefix.as_ref())];
    if !key.is_empty() {
        query.extend([("key-marker", key), ("upload-id-marker", id)]);
    }
    let options = SignedUrlOptions::new().with_query(query);
    let url = bucket.objects.signed_url_opts(Method::GET, &Path::default(), SIGNED_FOR, &options).await;
    let url = url.map_err(StorageError::general)?;
    let text = bucket.connector.get(url.as_str()).await?;
    quick_xml::de::from_str(&text).map_err(StorageError::away)
}

fn is_blob(bucket: &Bucket, upload: &Upload) -> bool {
    let key = Path::parse(&upload.key).ok();
    let below = key.as_ref().and_then(|key| key.prefix_match(&bucket.prefix));
    below.is_some_and(|parts| BlobId::of_key(&Path::from_iter(parts)).is_some())
}

fn is_idle(upload: &Upload, idle: Duration) -> Result<bool, StorageError> {
    let begun_at = OffsetDateTime::parse(&upload.begun_at, &Rfc3339).map_err(StorageError::away)?;
    Ok(OffsetDateTime::now_utc() - begun_at >= idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whatever_else_it_has() {
        let xml = "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                   <Bucket>b</Bucket><NextKeyMarker>p/k</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>\
                   <IsTruncated>true</IsTruncated>\
                   <Upload><Key>p/j</Key><UploadId>u1</UploadId><Owner><ID>o</ID></Owner>\
                   <Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>\
                   <Upload><Key>p/k</Key><UploadId>u2</UploadId><Initiated>2999-01-02T03:04:05Z</Initiated></Upload>\
                   </ListMultipartUploadsResult>";
        let page: Listing = quick_xml::de::from_str(xml).expect("a listing");
        assert_eq!((page.is_truncated, page.next_key.as_str(), page.next_upload.as_str()), (true, "p/k", "u2"));
        let ids: Vec<_> = page.uploads.iter().map(|upload| upload.id.as_str()).collect();
        assert_eq!(ids, ["u1", "u2"]);
        let idle = |upload| is_idle(upload, Duration::from_secs(3600)).expect("a time");
        assert!(idle(&page.uploads[0]) && !idle(&page.uploads[1]));
        let empty: Listing = quick_xml::de::from_str("<ListMultipartUploadsResult/>").expect("an empty one");
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
