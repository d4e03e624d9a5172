package s3sink_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given a Config, then the request has the headers of that Config.
func TestHeaders(t *testing.T) {
	t.Parallel()
	const key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for name, tt := range map[string]struct {
		change func(*s3sink.Config)
		want   map[string]string
	}{
		"none": {func(*s3sink.Config) {}, map[string]string{
			"X-Amz-Server-Side-Encryption": "", "X-Amz-Acl": "", "X-Amz-Storage-Class": "", "X-Amz-Tagging": "",
			"X-Amz-Expected-Bucket-Owner": "", "Content-Type": "application/gzip", "Content-Encoding": "",
		}},
		"SSE-S3": {func(c *s3sink.Config) { c.Encryption = s3sink.SSES3() }, map[string]string{
			"X-Amz-Server-Side-Encryption": "AES256", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "",
			"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "",
		}},
		"SSE-KMS": {func(c *s3sink.Config) { c.Encryption = s3sink.SSEKMS(key) }, map[string]string{
			"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": key,
			"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "true", "X-Amz-Server-Side-Encryption-Context": "",
		}},
		"SSE-KMS, all options": {func(c *s3sink.Config) {
			c.Encryption = s3sink.SSEKMS(key, s3sink.WithoutBucketKey(), s3sink.WithEncryptionContext(map[string]string{"team": "data"}))
		}, map[string]string{
			"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "false",
			"X-Amz-Server-Side-Encryption-Context":            "eyJ0ZWFtIjoiZGF0YSJ9",
		}},
		"the rest": {func(c *s3sink.Config) {
			c.ACL, c.StorageClass, c.ExpectedBucketOwner = "bucket-owner-full-control", "STANDARD_IA", s3sinktest.AccountID
			c.Metadata = map[string]string{"team": "data"}
			c.Tags = map[string]string{"cost centre": "a=b + c", "env": "prod"}
			c.ContentType, c.ContentEncoding = s3sink.SegmentContentType, s3sink.SegmentContentEncoding
		}, map[string]string{
			"X-Amz-Acl": "bucket-owner-full-control", "X-Amz-Storage-Class": "STANDARD_IA",
			"X-Amz-Expected-Bucket-Owner": s3sinktest.AccountID, "X-Amz-Tagging": "cost%20centre=a%3Db%20%2B%20c&env=prod",
			"X-Amz-Meta-Team": "data", "X-Amz-Meta-S3sink-Events": "1",
			"Content-Type": "text/plain", "Content-Encoding": "gzip",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t)
			server.AddRole(s3sinktest.Role{
				ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID,
				Actions: []string{"s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging", "kms:GenerateDataKey"},
			})
			server.AddKMSKey(s3sinktest.KMSKey{ARN: key})
			tt.change(&cfg)
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			requests := server.Requests()
			put := requests[slices.IndexFunc(requests, func(r s3sinktest.Request) bool { return r.Operation == "PutObject" })]
			for header, want := range tt.want {
				if got := put.Header.Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
		})
	}
}

func TestBadHeaders(t *testing.T) {
	t.Parallel()
	tooMany := map[string]string{}
	for _, c := range "abcdefghijk" {
		tooMany[string(c)] = ""
	}
	for name, tt := range map[string]struct {
		field  string
		change func(*s3sink.Config)
	}{
		"ACL":           {"ACL", func(c *s3sink.Config) { c.ACL = "everybody" }},
		"storage class": {"StorageClass", func(c *s3sink.Config) { c.StorageClass = "COLD" }},
		"owner":         {"ExpectedBucketOwner", func(c *s3sink.Config) { c.ExpectedBucketOwner = "1234" }},
		"KMS key":       {"Encryption.Key", func(c *s3sink.Config) { c.Encryption = s3sink.SSEKMS("arn:aws:s3:::bucket") }},
		"no KMS key":    {"Encryption.Key", func(c *s3sink.Config) { c.Encryption = s3sink.SSEKMS("") }},
		"long context": {"Encryption.Context", func(c *s3sink.Config) {
			c.Encryption = s3sink.SSEKMS("alias/x", s3sink.WithEncryptionContext(map[string]string{"a": strings.Repeat("x", 4096)}))
		}},
		"header injection": {"ContentType", func(c *s3sink.Config) { c.ContentType = "text/plain\r\nX-Evil: 1" }},
		"encoding":         {"ContentEncoding", func(c *s3sink.Config) { c.ContentEncoding = " gzip" }},
		"metadata name":    {"Metadata", func(c *s3sink.Config) { c.Metadata = map[string]string{"Team": "x"} }},
		"our metadata":     {"Metadata", func(c *s3sink.Config) { c.Metadata = map[string]string{"s3sink-events": "9"} }},
		"metadata value":   {"Metadata[team]", func(c *s3sink.Config) { c.Metadata = map[string]string{"team": "é"} }},
		"long metadata":    {"Metadata", func(c *s3sink.Config) { c.Metadata = map[string]string{"team": strings.Repeat("x", 2000)} }},
		"many tags":        {"Tags", func(c *s3sink.Config) { c.Tags = tooMany }},
		"tag key":          {"Tags", func(c *s3sink.Config) { c.Tags = map[string]string{"aws:x": ""} }},
		"tag value":        {"Tags[a]", func(c *s3sink.Config) { c.Tags = map[string]string{"a": "b&c"} }},
	} {
		cfg := new(nullStore).config()
		tt.change(&cfg)
		_, err := s3sink.New(t.Context(), cfg)
		var wrong *s3sink.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != tt.field {
			t.Errorf("%s: %v, want an error for %s", name, err, tt.field)
		}
	}
}
