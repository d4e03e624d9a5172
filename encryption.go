package s3sink

import "github.com/s3sink/s3sink/internal/s3put"

// Encryption is how S3 encrypts objects at rest. The zero value is
// [BucketDefault].
type Encryption struct {
	header s3put.Encryption
}

// BucketDefault sends no header: S3 encrypts as the bucket says, which is
// SSE-S3 unless its owner chose a KMS key.
func BucketDefault() Encryption { return Encryption{} }

// SSES3 asks for keys that S3 manages, with x-amz-server-side-encryption:
// AES256, as RudderStack's "Enable Server Side Encryption" does. The request
// wins over the bucket: objects of a bucket whose default is a KMS key are then
// not encrypted with that key, or are refused by its policy.
func SSES3() Encryption { return Encryption{s3put.Encryption{Algorithm: "AES256"}} }

// String names the setting for logs.
func (e Encryption) String() string {
	if e.header.Algorithm == "" {
		return "bucket default"
	}
	return "SSE-S3"
}
