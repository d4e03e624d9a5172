package s3sink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"

	"github.com/s3sink/s3sink/internal/s3put"
)

// Encryption is the encryption of objects at rest. The zero value is
// [BucketDefault].
type Encryption struct {
	algorithm string
	key       string
	bucketKey bool
	context   map[string]string
}

// BucketDefault sends no encryption header. S3 uses the default encryption of the
// bucket, which is SSE-S3 unless its owner has chosen a KMS key.
func BucketDefault() Encryption { return Encryption{} }

// SSES3 encrypts objects with keys that S3 manages. It sends
// x-amz-server-side-encryption: AES256, like RudderStack's "Enable Server Side
// Encryption". The request overrides the default of the bucket: if that is a KMS
// key, objects are not encrypted with it, or the bucket policy refuses them.
func SSES3() Encryption { return Encryption{algorithm: "AES256"} }

// SSEKMS encrypts objects with a symmetric KMS key. key is its ARN, its id or its
// alias; a key of another account needs the ARN. The writing identity needs
// kms:GenerateDataKey on the key. S3 uses a bucket key, which saves nearly all
// calls to KMS; see [WithoutBucketKey].
func SSEKMS(key string, opts ...KMSOption) Encryption {
	e := Encryption{algorithm: "aws:kms", key: key, bucketKey: true}
	for _, opt := range opts {
		if opt != nil {
			opt(&e)
		}
	}
	return e
}

// KMSOption is an option of [SSEKMS].
type KMSOption func(*Encryption)

// WithoutBucketKey makes S3 request a data key from KMS for every object. Use it
// if the use of the key is audited per object.
func WithoutBucketKey() KMSOption { return func(e *Encryption) { e.bucketKey = false } }

// WithEncryptionContext adds an encryption context, which KMS logs and key
// policies can require. It is not secret.
func WithEncryptionContext(context map[string]string) KMSOption {
	return func(e *Encryption) { e.context = maps.Clone(context) }
}

// String returns the name of the setting, for logs.
func (e Encryption) String() string {
	switch e.algorithm {
	case "":
		return "bucket default"
	case "AES256":
		return "SSE-S3"
	}
	return "SSE-KMS " + e.key
}

// kmsKey matches the ARN, id or alias of a KMS key.
var kmsKey = regexp.MustCompile(`^(arn:(aws|aws-cn|aws-us-gov):kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[\w/-]+|alias/[\w/-]+|(mrk-)?[0-9a-f-]{32,36})$`)

func (e Encryption) check(errs *configErrors) {
	if e.algorithm == "aws:kms" && !kmsKey.MatchString(e.key) {
		errs.add("Encryption.Key", e.key, "arn:aws:kms:REGION:ACCOUNT_ID:key/KEY_ID, or a key id or alias/NAME of the role's account")
	}
	if n := len(e.contextHeader()); n > maxEncryptionContext {
		errs.add("Encryption.Context", fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d bytes as base64 of JSON", maxEncryptionContext))
	}
}

// maxEncryptionContext is half of S3's limit of 8 KiB for all headers.
const maxEncryptionContext = 4096

// contextHeader returns the encryption context as base64 of its JSON, or "".
func (e Encryption) contextHeader() string {
	if len(e.context) == 0 {
		return ""
	}
	text, err := json.Marshal(e.context)
	if err != nil {
		return "" // a map of strings always marshals
	}
	return base64.StdEncoding.EncodeToString(text)
}

func (e Encryption) headers() s3put.Encryption {
	return s3put.Encryption{Algorithm: e.algorithm, KMSKey: e.key, BucketKey: e.bucketKey, KMSContext: e.contextHeader()}
}
