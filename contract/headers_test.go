package contract

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

var headers = []expectation{
	{
		name: "user metadata",
		aws:  "200 with it",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("meta/a", hello, "x-amz-meta-s3sink-events", "42", "x-amz-meta-run", "a-b c"))
			a := s.object(t, "meta/a")
			return a.String() + withOrWithout(a.header.Get("x-amz-meta-s3sink-events") == "42" && a.header.Get("x-amz-meta-run") == "a-b c")
		},
	},
	{
		name:    "2,048 bytes of user metadata",
		aws:     "200",
		differs: differs{minio: "400 MetadataTooLarge"},
		see:     one(func(*site) request { return put("meta-most/a", hello, "x-amz-meta-m", strings.Repeat("m", 2047)) }),
	},
	{
		name:    "2,049 bytes of user metadata",
		aws:     "400 MetadataTooLarge",
		differs: differs{ceph: "200"},
		see:     one(func(*site) request { return put("meta-more/a", hello, "x-amz-meta-m", strings.Repeat("m", 2048)) }),
	},
	{
		name: "Content-Type and Content-Encoding",
		aws:  "200 text/plain gzip, the same bytes",
		see: func(t *testing.T, s *site) string {
			const body = "\x1f\x8b is how gzip begins"
			s.do(t, put("type/a", body, "Content-Type", "text/plain", "Content-Encoding", "gzip"))
			a := s.object(t, "type/a")
			return fmt.Sprintf("%s %s %s, %s", a, a.header.Get("Content-Type"), a.header.Get("Content-Encoding"), compare(a.body, body))
		},
	},
	{
		name: "no Content-Type",
		aws:  "200 binary/octet-stream",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("no-type/a", hello))
			a := s.object(t, "no-type/a")
			return a.String() + " " + a.header.Get("Content-Type")
		},
	},
	{
		name: "encryption AES256",
		aws:  "200 AES256",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("aes/a", hello, sseHeader, "AES256")))
		},
		differs: differs{versitygw: "200", ceph: "200"},
	},
	{
		name: "no encryption requested",
		aws:  "200 AES256",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("no-sse/a", hello)))
		},
		differs: differs{versitygw: "200", minio: "200", ceph: "200"},
	},
	{
		name: "encryption with a KMS key",
		aws:  "200 aws:kms with it",
		see: func(t *testing.T, s *site) string {
			a := s.do(t, put("kms/a", hello, sseHeader, "aws:kms", sseKeyHeader, s.kmsKey))
			return sse(a) + withOrWithout(strings.HasSuffix(a.header.Get(sseKeyHeader), s.kmsKey))
		},
		differs: differs{versitygw: "200 without it"},
	},
	{
		name: "encryption with a KMS key that does not exist",
		aws:  "400 KMS.NotFoundException",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("kms-absent/a", hello, sseHeader, "aws:kms", sseKeyHeader, "absent-key")))
		},
		differs: differs{versitygw: "200", minio: "404 kms:KeyNotFound", ceph: "403 InvalidAccessKeyId"},
	},
	{
		name:    "a KMS key with AES256",
		aws:     "400 InvalidArgument",
		differs: differs{versitygw: "200", ceph: "200"},
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("kms-aes/a", hello, sseHeader, "AES256", sseKeyHeader, s.kmsKey)))
		},
	},
	{
		name:    "encryption of another name",
		aws:     "400 InvalidEncryptionAlgorithmError",
		differs: differs{minio: "400 InvalidArgument", versitygw: "200", ceph: "400 InvalidArgument"},
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("sse-bogus/a", hello, sseHeader, "ROT13")))
		},
	},
	{
		name:    "the bucket encrypts with KMS by default",
		aws:     "200 aws:kms",
		differs: differs{versitygw: "501 NotImplemented", ceph: "400 InvalidArgument"},
		see: func(t *testing.T, s *site) string {
			bucket, a := s.kmsBucket(t)
			if a.status != http.StatusOK {
				return a.String()
			}
			r := put("a", hello)
			r.bucket = bucket
			return sse(s.do(t, r))
		},
	},
	{
		name: "storage class STANDARD",
		aws:  "200",
		see:  one(func(*site) request { return put("standard/a", hello, "x-amz-storage-class", "STANDARD") }),
	},
	{
		name:    "storage class STANDARD_IA",
		aws:     "200",
		differs: differs{minio: "400 InvalidStorageClass", ceph: "400 InvalidArgument"},
		see:     one(func(*site) request { return put("infrequent/a", hello, "x-amz-storage-class", "STANDARD_IA") }),
	},
	{
		name:    "a storage class that does not exist",
		aws:     "400 InvalidStorageClass",
		differs: differs{versitygw: "200", ceph: "400 InvalidArgument"},
		see:     one(func(*site) request { return put("bogus-class/a", hello, "x-amz-storage-class", "BOGUS") }),
	},
	{
		name: "ACL bucket-owner-full-control",
		aws:  "200",
		see:  one(func(*site) request { return put("acl-owner/a", hello, "x-amz-acl", "bucket-owner-full-control") }),
	},
	{
		name:    "ACL private",
		aws:     "400 AccessControlListNotSupported",
		note:    "Buckets have no ACLs by default since 2023.",
		differs: differs{minio: "200", versitygw: "200", ceph: "200"},
		see:     one(func(*site) request { return put("acl-private/a", hello, "x-amz-acl", "private") }),
	},
	{
		name: "tags",
		aws:  "200",
		see:  one(func(*site) request { return put("tags/a", hello, "x-amz-tagging", "team=data&tier=1") }),
	},
	{
		name:    "a tag with a space, as %20",
		aws:     "200, team is data lake",
		differs: differs{double: "501 NotImplemented"},
		see:     func(t *testing.T, s *site) string { return s.putTag(t, "tag-percent/a", "data%20lake") },
	},
	{
		name:    "a tag with a space, as +",
		aws:     "200, team is data lake",
		differs: differs{double: "501 NotImplemented", ceph: "200, team is data+lake"},
		see:     func(t *testing.T, s *site) string { return s.putTag(t, "tag-plus/a", "data+lake") },
	},
	{
		name:    "the wrong expected bucket owner",
		aws:     "403 AccessDenied",
		see:     one(func(*site) request { return put("owner/a", hello, "x-amz-expected-bucket-owner", "999999999999") }),
		differs: differs{minio: "200", ceph: "200"},
	},
}

const (
	sseHeader    = "x-amz-server-side-encryption"
	sseKeyHeader = "x-amz-server-side-encryption-aws-kms-key-id"
)

// putTag puts an object with an encoded tag, and returns the tag that is stored.
func (s *site) putTag(t *testing.T, key, encoded string) string {
	t.Helper()
	if a := s.do(t, put(key, hello, "x-amz-tagging", "team="+encoded)); a.status != http.StatusOK {
		return a.String()
	}
	a := s.do(t, get(key).with("tagging", ""))
	if a.status != http.StatusOK {
		return a.String()
	}
	var tags struct {
		Value string `xml:"TagSet>Tag>Value"`
	}
	if err := xml.Unmarshal([]byte(a.body), &tags); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return a.String() + ", team is " + tags.Value
}

// sse returns an answer with its encryption header.
func sse(a answer) string {
	return strings.TrimSpace(a.String() + " " + a.header.Get(sseHeader))
}
