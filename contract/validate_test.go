package contract

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
)

const aboutValidate = `All six rows of the documented table come from a real server here. Rows 1 (IntermediateRole), 2
(ExternalIDNotRequired), 3 (AssumeRole) and 4 (ExternalIDRejected) come from MinIO's STS and Ceph's.
Rows 5 (PutObjectDenied) and 6 (PutObject) come from all three servers.

Some causes exist only on AWS, and only s3sinktest answers them:

- an external id that is checked. MinIO and Ceph ignore it, so their row 4 is a caller that the STS
  refuses. Ceph's STS answers in the shape of S3;
- a region where STS is not active;
- KMS keys that are disabled, asymmetric, or not for the caller;
- buckets without ACLs;
- 301 to another region;
- denials that name a policy.

`

// validations are the results of Validate, in the order of the documented table.
var validations = []expectation{
	{
		name: "Validate: access keys",
		aws:  "valid",
		see:  func(t *testing.T, s *site) string { return s.validate(t, s.sink(s.asWriter())) },
	},
	{
		name: "Validate: a role",
		aws:  "valid",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			return s.validate(t, s.sink(s.asRole(s3sink.WithoutSessionPolicy())))
		},
		differs: differs{minio: "ExternalIDNotRequired", ceph: "ExternalIDNotRequired"},
	},
	{
		name: "Validate: an intermediate role, with a wrong secret",
		aws:  "IntermediateRole, 403 SignatureDoesNotMatch",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			wrong := *s
			wrong.caller.secret = "wrong"
			hop := wrong.asRole(s3sink.WithoutSessionPolicy())
			return s.validate(t, s.sink(s3sink.AssumeRole(s.role, s.externalID, s3sink.Via(hop))))
		},
		differs: differs{minio: "IntermediateRole, 403 AccessDenied", ceph: "IntermediateRole, 403 AccessDenied"},
	},
	{
		name: "Validate: a role, assumed with a wrong secret",
		aws:  "IntermediateRole, 403 SignatureDoesNotMatch",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			wrong := *s
			wrong.caller.secret = "wrong"
			return s.validate(t, s.sink(wrong.asRole(s3sink.WithoutSessionPolicy())))
		},
		differs: differs{minio: "ExternalIDRejected, 403 AccessDenied", ceph: "ExternalIDRejected, 403 AccessDenied"},
	},
	{
		name: "Validate: a role, with a session policy",
		aws:  "valid",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			return s.validate(t, s.sink(s.asRole()))
		},
		differs: differs{minio: "AssumeRole, 400 InvalidParameterValue", ceph: "AssumeRole, 400 MalformedPolicyDocument"},
	},
	{
		name:  "Validate: a role, of an S3 without STS",
		aws:   "AssumeRole, 405 MethodNotAllowed",
		note:  "The code is S3's: its answer does not have the shape of an STS answer.",
		needs: []need{needsNoSTS},
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asRole())
			cfg.STSEndpoint = s.url
			return s.validate(t, cfg)
		},
	},
	{
		name: "Validate: a role, with the wrong external id",
		aws:  "ExternalIDRejected, 403 AccessDenied",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			wrong := *s
			wrong.externalID = "another-external-id"
			return s.validate(t, s.sink(wrong.asRole(s3sink.WithoutSessionPolicy())))
		},
		differs: differs{minio: "ExternalIDNotRequired", ceph: "ExternalIDNotRequired"},
	},
	{
		name: "Validate: a role, without its external id",
		aws:  "ExternalIDRejected, 403 AccessDenied",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			wrong := *s
			wrong.externalID = ""
			return s.validate(t, s.sink(wrong.asRole(s3sink.WithoutSessionPolicy())))
		},
		differs: differs{minio: "valid", ceph: "valid"},
	},
	{
		name: "Validate: access keys without permission",
		aws:  "PutObjectDenied, 403 AccessDenied",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.Bucket = s.bucket + "/outside"
			return s.validate(t, cfg)
		},
	},
	{
		name:    "Validate: a wrong secret",
		aws:     "PutObjectDenied, 403 SignatureDoesNotMatch",
		differs: differs{ceph: "PutObjectDenied, 403 AccessDenied"},
		see: func(t *testing.T, s *site) string {
			return s.validate(t, s.sink(s3sink.AccessKeys(s.writer.id, "wrong", "")))
		},
	},
	{
		name:    "Validate: an access key that does not exist",
		aws:     "PutObjectDenied, 403 InvalidAccessKeyId",
		differs: differs{ceph: "PutObjectDenied, 403 AccessDenied"},
		see: func(t *testing.T, s *site) string {
			return s.validate(t, s.sink(s3sink.AccessKeys("AKIAUNKNOWN000000000", "s", "")))
		},
	},
	{
		name: "Validate: the wrong expected bucket owner",
		aws:  "PutObjectDenied, 403 AccessDenied",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.ExpectedBucketOwner = "999999999999"
			return s.validate(t, cfg)
		},
		differs: differs{minio: "valid", ceph: "valid"},
	},
	{
		name: "Validate: a session with an invalid token",
		aws:  "PutObject, 400 InvalidToken",
		see: func(t *testing.T, s *site) string {
			k := s.session(t, time.Hour)
			return s.validate(t, s.sink(s3sink.AccessKeys(k.id, k.secret, "hello")))
		},
		differs: differs{minio: "PutObjectDenied, 403 InvalidTokenId", ceph: "PutObject, 400 InvalidArgument"},
	},
	{
		name: "Validate: no such bucket",
		aws:  "PutObject, 404 NoSuchBucket",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s3sink.AccessKeys(s.owner.id, s.owner.secret, s.owner.token))
			cfg.Bucket = "contract-no-such-bucket"
			return s.validate(t, cfg)
		},
	},
	{
		name:    "Validate: the wrong region",
		aws:     "PutObject, 400 AuthorizationHeaderMalformed, and names the right one",
		differs: differs{ceph: "valid"},
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.Region = "us-west-2"
			says, hint := s.validateHint(t, cfg)
			if strings.Contains(hint, "The bucket is in "+region+", not in us-west-2.") {
				says += ", and names the right one"
			}
			return says
		},
	},
	{
		name: "Validate: a KMS key that does not exist",
		aws:  "PutObject, 400 KMS.NotFoundException, and says so",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s3sink.AccessKeys(s.owner.id, s.owner.secret, s.owner.token))
			cfg.Encryption = s3sink.SSEKMS("00000000-0000-0000-0000-000000000000")
			says, hint := s.validateHint(t, cfg)
			if strings.Contains(hint, "does not exist") {
				says += ", and says so"
			}
			return says
		},
		differs: differs{versitygw: "valid", minio: "PutObject, 404 kms:KeyNotFound, and says so", ceph: "PutObjectDenied, 403 InvalidAccessKeyId"},
	},
	{
		name: "Validate: a storage class unknown to the store",
		aws:  "PutObject, 400 InvalidStorageClass",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.StorageClass = "NO_SUCH_CLASS"
			return s.validate(t, cfg)
		},
		differs: differs{versitygw: "valid", ceph: "PutObject, 400 InvalidArgument"},
	},
}

// validate returns the code of Validate, and the answer that led to it.
func (s *site) validate(t *testing.T, cfg s3sink.Config) string {
	t.Helper()
	says, _ := s.validateHint(t, cfg)
	return says
}

// validateHint is validate that also returns the hint.
func (s *site) validateHint(t *testing.T, cfg s3sink.Config) (says, hint string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close(ctx)
	err = sink.Validate(ctx)
	var why *s3sink.ValidationError
	switch {
	case err == nil:
		return "valid", ""
	case errors.As(err, &why):
		t.Log(err)
		if why.Status == 0 {
			return string(why.Code), why.Hint // no server answered with an error
		}
		return fmt.Sprintf("%s, %s", why.Code, answer{status: why.Status, code: why.AWSCode}), why.Hint
	}
	t.Fatal(err)
	return "", ""
}
