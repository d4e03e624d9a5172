package s3sink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"

	"github.com/s3sink/s3sink/internal/s3put"
)

// Encryption is how S3 encrypts objects at rest. The zero value is
// [BucketDefault].
type Encryption struct {
	algorithm string
	key       string
	bucketKey bool
	context   map[string]string
}

// BucketDefault sends no header: S3 encrypts as the bucket says, which is
// SSE-S3 unless its owner chose a KMS key.
func BucketDefault() Encryption { return Encryption{} }

// SSES3 asks for keys that S3 manages, with x-amz-server-side-encryption:
// AES256, as RudderStack's "Enable Server Side Encryption" does. The request
// wins over the bucket: objects of a bucket whose default is a KMS key are then
// not encrypted with that key, or are refused by its policy.
func SSES3() Encryption { return Encryption{algorithm: "AES256"} }

// SSEKMS asks for a symmetric KMS key: its ARN, which a key of another account
// needs; or its id or alias. Whoever writes needs kms:GenerateDataKey on it. S3
// is asked to use a bucket key, which saves nearly all calls to KMS; see
// [WithoutBucketKey].
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

// WithoutBucketKey asks KMS for a data key for every object, for keys whose use
// is audited object by object.
func WithoutBucketKey() KMSOption { return func(e *Encryption) { e.bucketKey = false } }

// WithEncryptionContext adds pairs that KMS logs and policies can demand. They
// are not secret.
func WithEncryptionContext(context map[string]string) KMSOption {
	return func(e *Encryption) { e.context = maps.Clone(context) }
}

// String names the setting for logs.
func (e Encryption) String() string {
	switch e.algorithm {
	case "":
		return "bucket default"
	case "AES256":
		return "SSE-S3"
	}
	return "SSE-KMS " + e.key
}

// kmsKey takes what KMS takes: a key or alias, by ARN or by itself.
var kmsKey = regexp.MustCompile(`^(arn:(aws|aws-cn|aws-us-gov):kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[\w/-]+|alias/[\w/-]+|(mrk-)?[0-9a-f-]{32,36})$`)

func (e Encryption) check(errs *configErrors) {
	if e.algorithm == "aws:kms" && !kmsKey.MatchString(e.key) {
		errs.add("Encryption.Key", e.key, "arn:aws:kms:REGION:ACCOUNT_ID:key/KEY_ID, or a key id or alias/NAME of the role's account")
	}
	if n := len(e.contextHeader()); n > maxEncryptionContext {
		errs.add("Encryption.Context", fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d bytes as base64 of JSON", maxEncryptionContext))
	}
}

// maxEncryptionContext leaves room for it in S3's 8 KiB of headers.
const maxEncryptionContext = 4096

// contextHeader is the context as S3 wants it: base64 of its JSON, or "".
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
