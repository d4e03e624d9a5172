package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// The documented messages, in the words of Segment's table.
const (
	tryAgain     = "Unknown Error. Please try again. If the problem persists, please contact Segment support."
	externalID   = "Access Denied. Please configure External ID in the AWS IAM Console. Learn more."
	instructions = "Unknown Error. Please follow instructions to set up the AWS S3 destination. If the problem persists, please contact Segment support."
	putObject    = "Access Denied. Please add PutObject permissions to the IAM role in the AWS IAM Console. Learn more."
)

var messages = map[s3sink.ValidationCode]string{
	s3sink.CodeIntermediateRole:      tryAgain,
	s3sink.CodeExternalIDNotRequired: externalID,
	s3sink.CodeAssumeRole:            instructions,
	s3sink.CodeExternalIDRejected:    externalID,
	s3sink.CodePutObjectDenied:       putObject,
	s3sink.CodePutObject:             instructions,
}

// invalid is a setup that Validate must refuse, and the expected error.
type invalid struct {
	change func(*s3sinktest.Server, *s3sink.Config)
	fault  s3sinktest.Fault // injected if it has an operation
	code   s3sink.ValidationCode
	step   string
	status int
	hint   string
}

// withID returns a matcher for STS requests with an external id, or without
// one.
func withID(yes bool) func(*http.Request) bool {
	return func(r *http.Request) bool { return yes == (r.FormValue("ExternalId") != "") }
}

func stsFault(status int, code string, match func(*http.Request) bool) s3sinktest.Fault {
	return s3sinktest.Fault{Operation: "AssumeRole", Status: status, Code: code, Match: match}
}

func putFault(status int, code, message string) s3sinktest.Fault {
	return s3sinktest.Fault{Operation: "PutObject", Status: status, Code: code, Message: message}
}

var invalids = map[string]invalid{
	// Row 1: a failure before the role that writes is assumed.
	"no credentials": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID)
		},
		code: s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, hint: "No credentials were found to assume the role with"},
	"no credentials and no role": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Credentials = s3sink.Ambient() },
		code:   s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, hint: "No credentials were found: Config.AWS has none. Fix: Set Config.Credentials"},
	"unknown key": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.Via(s3sink.AccessKeys("AKIANOBODY", "x", "")))
		},
		code: s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "does not know the access key of the credentials to assume the role with (access key AKIANOBODY)"},
	"expired base session": {
		fault: s3sinktest.Fault{Operation: "GetCallerIdentity", Status: 403, Code: "ExpiredToken"},
		code:  s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "has ended. The role and its external id are not the problem. Fix: Get a new session"},
	"intermediate role refused": {
		change: func(s *s3sinktest.Server, c *s3sink.Config) {
			twoHops(s, c)
			s.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"arn:aws:iam::123456789012:user/else"}})
		},
		code: s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "The intermediate role arn:aws:iam::123456789012:role/S3Sink cannot be assumed."},

	// Row 2: the role does not demand the external id.
	"external id not demanded": {
		change: func(s *s3sinktest.Server, _ *s3sink.Config) {
			s.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}})
		},
		code: s3sink.CodeExternalIDNotRequired, step: s3sink.StepWithoutID, hint: `"Principal":{"AWS":"arn:aws:iam::210987654321:user/service"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["s3sinktest-external-id"]}}}`},

	// Row 3: an error other than 403, with or without the external id.
	"bad request, without": {fault: stsFault(400, "ValidationError", withID(false)),
		code: s3sink.CodeAssumeRole, step: s3sink.StepWithoutID, status: 400, hint: "Look at the role's ARN"},
	"bad request, with": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.Via(service), s3sink.WithDuration(12*time.Hour))
		},
		fault: stsFault(400, "ValidationError", withID(true)),
		code:  s3sink.CodeAssumeRole, step: s3sink.StepRole, status: 400, hint: "maximum session duration, because WithDuration is used"},
	"role chaining": {
		fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 400, Code: "ValidationError", Message: "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.", Match: withID(true)},
		code:  s3sink.CodeAssumeRole, step: s3sink.StepRole, status: 400, hint: "WithDuration(time.Hour) at most"},
	"trust policy": {
		fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "AccessDenied", Message: "User: arn:aws:iam::210987654321:user/service is not authorized to perform: sts:AssumeRole because no role trust policy allows the sts:AssumeRole action"},
		code:  s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "In the trust policy of arn:aws:iam::123456789012:role/S3Sink: {"},
	"caller's permissions": {
		fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "AccessDenied", Message: "User: arn:aws:iam::210987654321:user/service is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/S3Sink because no identity-based policy allows the sts:AssumeRole action"},
		code:  s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: `In the permissions of arn:aws:iam::210987654321:user/service: {"Effect":"Allow","Action":["sts:AssumeRole"]`},
	"session tags": {
		fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "AccessDenied", Message: "User: arn:aws:iam::210987654321:user/service is not authorized to perform: sts:TagSession on resource: arn:aws:iam::123456789012:role/S3Sink"},
		code:  s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: `"Action":["sts:AssumeRole","sts:TagSession"]`},
	"the caller's clock": {
		fault: s3sinktest.Fault{Operation: "GetCallerIdentity", Status: 403, Code: "SignatureDoesNotMatch", Message: "Signature expired: 19991231T220000Z is now earlier than 19991231T234500Z"},
		code:  s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "The clock of this host"},
	"the caller's clock, by the date of the answer": {
		fault: s3sinktest.Fault{Operation: "GetCallerIdentity", Status: 403, Code: "SignatureDoesNotMatch", Header: http.Header{"Date": {"Sat, 01 Jan 2000 01:00:00 GMT"}}},
		code:  s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "h0m0s behind the date of the answer"},
	"the caller is refused": {
		fault: s3sinktest.Fault{Operation: "GetCallerIdentity", Status: 403, Code: "AccessDenied", Message: "Access Denied"},
		code:  s3sink.CodeIntermediateRole, step: s3sink.StepCredentials, status: 403, hint: "GetCallerIdentity"},
	"a refusal that moto nests": {
		fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, ContentType: "text/xml", Body: []byte("<ErrorResponse><Errors><Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::210987654321:user/service is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/S3Sink</Message></Error></Errors></ErrorResponse>")},
		code:  s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "STS gives the same answer"},
	"STS is down": {fault: stsFault(503, "ServiceUnavailable", nil),
		code: s3sink.CodeAssumeRole, step: s3sink.StepWithoutID, status: 503, hint: "busy"},
	"STS hangs": {fault: s3sinktest.Fault{Operation: "AssumeRole", Stall: true},
		code: s3sink.CodeAssumeRole, step: s3sink.StepWithoutID, hint: "STS did not answer"},
	"STS is a web page": {fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 404, Body: []byte("<html>not here</html>"), ContentType: "text/html"},
		code: s3sink.CodeAssumeRole, step: s3sink.StepWithoutID, status: 404, hint: "The answer is not STS's (404 text/html)"},
	"session policy too large": {fault: stsFault(400, "PackedPolicyTooLarge", withID(true)),
		code: s3sink.CodeAssumeRole, step: s3sink.StepRole, status: 400, hint: "WithoutSessionPolicy"},

	"session policy of another STS": {fault: stsFault(400, "InvalidParameterValue", withID(true)),
		code: s3sink.CodeAssumeRole, step: s3sink.StepRole, status: 400, hint: "Use WithoutSessionPolicy, or SSES3"},

	// Row 4: error 403 of STS.
	"wrong external id": {
		change: func(s *s3sinktest.Server, _ *s3sink.Config) {
			s.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: "another"})
		},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: `with external id "s3sinktest-external-id"`},
	"no such role": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole("arn:aws:iam::123456789012:role/Nobody", "id", s3sink.Via(service))
		},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "if the role does not exist, its trust policy does not name arn:aws:iam::"},
	"external id missing": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, "", s3sink.Via(service))
		},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "if the role demands one, set it"},
	"region disabled": {fault: stsFault(403, "RegionDisabledException", nil),
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "STS is not activated in region eu-west-1"},
	"clock, at an STS that says so": {fault: stsFault(403, "RequestTimeTooSkewed", nil),
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "The clock of this host is more than 15 minutes off."},
	"account not opted in": {fault: stsFault(403, "OptInRequired", nil),
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "has not opted into region eu-west-1"},
	"another STS refuses in its own words": {fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Body: []byte("<Error><Code>AccessDenied</Code></Error>"), ContentType: "application/xml"},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "STS gives the same answer"},
	"a proxy refuses": {fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Body: []byte("<html>"), ContentType: "text/html"},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "The answer is not STS's (403 text/html)"},
	"an empty refusal": {fault: s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Body: []byte{}},
		code: s3sink.CodeExternalIDRejected, step: s3sink.StepRole, status: 403, hint: "The answer is not STS's (403 without a content type)"},

	// Row 5: error 403 of S3.
	"no permission": {
		fault: putFault(403, "AccessDenied", "User: x is not authorized to perform: s3:PutObject on resource: y because no identity-based policy allows the s3:PutObject action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `"Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/segment-logs/*"]`},
	"denied without a reason": {fault: putFault(403, "AccessDenied", "Access Denied"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "or the bucket encrypts with a KMS key that the writer may not use"},
	"prefix outside the policy": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Bucket += "/path/prefix" },
		fault:  putFault(403, "AccessDenied", "Access Denied"),
		code:   s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `arn:aws:s3:::s3sinktest/path/prefix/segment-logs/*`},
	"no use of the key": {
		fault: putFault(403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:… because no identity-based policy allows the kms:GenerateDataKey action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `"kms:GenerateDataKey"`},
	"no use of the key in the session policy": {
		fault: putFault(403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:… because no session policy allows the kms:GenerateDataKey action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "WithoutSessionPolicy"},
	"no bucket policy": {
		fault: putFault(403, "AccessDenied", "User: arn:aws:sts::123456789012:assumed-role/S3Sink/s3sink is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::s3sinktest/segment-logs/dummy-object.txt\" because no resource-based policy allows the s3:PutObject action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `In the bucket policy of s3sinktest: {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/S3Sink"}`},
	"no S3 for the account": {fault: putFault(403, "NotSignedUp", ""),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "not signed up for S3"},
	"explicit deny": {fault: putFault(403, "AccessDenied", "with an explicit deny in a resource-based policy"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "Look for Deny in the bucket policy of s3sinktest"},
	"no use of the key that AWS names": {
		fault: putFault(403, "AccessDenied", "User: arn:aws:sts::123456789012:assumed-role/S3Sink/s3sink is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab because no identity-based policy allows the kms:Decrypt action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `{"Sid":"UseKeyThroughS3","Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"]`},
	"explicit deny of the key": {fault: putFault(403, "AccessDenied", "is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:… with an explicit deny in a resource-based policy"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "denies kms:GenerateDataKey explicitly, and no permission helps against that. Fix: Look for Deny in the policy of the KMS key"},
	"explicit deny of the organization": {fault: putFault(403, "AccessDenied", "is not authorized to perform: s3:PutObject on resource: x with an explicit deny in a service control policy"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "denies s3:PutObject explicitly, and no permission helps against that: a service control policy of the organization of account 123456789012."},
	"explicit deny of the boundary": {fault: putFault(403, "AccessDenied", "is not authorized to perform: s3:PutObject on resource: x with an explicit deny in a permissions boundary"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "in the permissions boundary of arn:aws:iam::123456789012:role/S3Sink"},
	"session policy of others": {
		change: func(s *s3sinktest.Server, c *s3sink.Config) {
			s.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/writer", AccessKeyID: "AKIAWRITER", SecretAccessKey: "w"})
			c.Credentials = writer
		},
		fault: putFault(403, "AccessDenied", "because no session policy allows the s3:PutObject action"),
		code:  s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "cut down to less than its role allows, by a session policy of the party"},
	"session policy": {fault: putFault(403, "AccessDenied", "because no session policy allows the s3:PutObject action"),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "WithoutSessionPolicy"},
	"no right to set ACLs": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.ACL = "bucket-owner-full-control" },
		fault:  putFault(403, "AccessDenied", "not authorized to perform: s3:PutObjectAcl on resource"),
		code:   s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: `Config.ACL ("bucket-owner-full-control") needs s3:PutObjectAcl`},
	"no right to set tags": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Tags = map[string]string{"a": "b"} },
		fault:  putFault(403, "AccessDenied", "not authorized to perform: s3:PutObjectTagging on resource"),
		code:   s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "Config.Tags need s3:PutObjectTagging"},
	"another owner": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.ExpectedBucketOwner = "999999999999" },
		fault:  putFault(403, "AccessDenied", "Access Denied"),
		code:   s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "does not belong to account 999999999999"},
	"clock": {fault: putFault(403, "RequestTimeTooSkewed", ""),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "The clock of this host"},
	"key unknown to S3": {fault: putFault(403, "InvalidAccessKeyId", ""),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "does not know the access key"},
	"secret wrong at S3": {fault: putFault(403, "SignatureDoesNotMatch", ""),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "The secret is not the one"},
	"closed account": {fault: putFault(403, "AllAccessDisabled", ""),
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "has disabled"},
	"refused by a page": {fault: s3sinktest.Fault{Operation: "PutObject", Status: 403, Body: []byte("<html>"), ContentType: "text/html"},
		code: s3sink.CodePutObjectDenied, step: s3sink.StepPutObject, status: 403, hint: "The answer is not S3's (403 text/html)"},

	// Row 6: any other error.
	"no such bucket": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Bucket = "no-such-bucket" },
		code:   s3sink.CodePutObject, step: s3sink.StepPutObject, status: 404, hint: "There is no bucket no-such-bucket"},
	"wrong region": {
		fault: s3sinktest.Fault{Operation: "PutObject", Status: 301, Code: "PermanentRedirect", Header: http.Header{"X-Amz-Bucket-Region": {"ap-south-1"}}},
		code:  s3sink.CodePutObject, step: s3sink.StepPutObject, status: 301, hint: "The bucket is in ap-south-1, not in eu-west-1. Fix: Correct Config.Region to \"ap-south-1\""},
	"wrong region, which the text names": {
		fault: putFault(400, "AuthorizationHeaderMalformed", "The authorization header is malformed; the region 'eu-west-1' is wrong; expecting 'ap-south-1'"),
		code:  s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "The bucket is in ap-south-1, not in eu-west-1."},
	"wrong region, which nobody names": {fault: putFault(301, "PermanentRedirect", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 301, hint: "The bucket is in another region than eu-west-1, and S3 did not name it."},
	"key does not exist in MinIO": {fault: putFault(404, "kms:KeyNotFound", "key with given key ID does not exist"),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 404, hint: "does not exist in the bucket's region"},
	"key does not exist": {fault: putFault(400, "KMS.NotFoundException", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "does not exist in the bucket's region"},
	"key is disabled": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Encryption = s3sink.SSEKMS("alias/logs") },
		fault:  putFault(400, "KMS.DisabledException", ""),
		code:   s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "KMS key alias/logs is disabled"},
	"key is going": {fault: putFault(400, "KMS.KMSInvalidStateException", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "waiting to be deleted"},
	"asymmetric key": {fault: putFault(400, "KMS.InvalidKeyUsageException", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "Use a symmetric key"},
	"no ACLs": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.ACL = "public-read" },
		fault:  putFault(400, "AccessControlListNotSupported", ""),
		code:   s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "Leave Config.ACL empty"},
	"token of the global STS": {fault: putFault(400, "InvalidToken", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "Config.STSRegion"},
	"not taken": {
		change: func(_ *s3sinktest.Server, c *s3sink.Config) { c.Encryption = s3sink.SSES3() },
		fault:  putFault(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
		code:   s3sink.CodePutObject, step: s3sink.StepPutObject, status: 501, hint: "change one of Config.Encryption (SSES3"},
	"key in a bad state under 500": {fault: putFault(500, "KMS.KMSInvalidStateException", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 500, hint: "waiting to be deleted"},
	"busy": {fault: putFault(503, "SlowDown", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 503, hint: "Validate again"},
	"slow body": {fault: putFault(400, "RequestTimeout", ""),
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "Validate again"},
	"S3 hangs": {fault: s3sinktest.Fault{Operation: "PutObject", Stall: true},
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, hint: "S3 did not answer"},
	"broken page": {fault: s3sinktest.Fault{Operation: "PutObject", Status: 400, Body: []byte("\x00<Error"), ContentType: "application/xml"},
		code: s3sink.CodePutObject, step: s3sink.StepPutObject, status: 400, hint: "The answer is not S3's (400 application/xml)"},
}

// atAWS makes cfg's sink treat the server in memory as AWS in cfg's region.
func atAWS(cfg *s3sink.Config) {
	region := cfg.Region
	likeAWS(cfg)
	cfg.Region = region
}

// service has the access keys of the user that may assume s3sinktest's role.
var service = s3sink.AccessKeys("AKIAS3SINKTEST000000", "s3sinktest/secret/access/key/000000000000", "")

// Given a setup of invalids, then Validate returns its row of the documented
// table. The setups cover every row, and every cause of a row.
func TestValidationErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range invalids {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				if tt.change != nil {
					tt.change(server, &cfg)
				}
				if tt.fault.Operation != "" {
					server.Inject(tt.fault)
				}
				atAWS(&cfg)
				sink := open(t, cfg)
				err := sink.Validate(t.Context())
				var got *s3sink.ValidationError
				if !errors.As(err, &got) {
					t.Fatalf("got %v, want %s", err, tt.code)
				}
				if got.Code != tt.code || got.Message != messages[tt.code] || got.Step != tt.step || got.Status != tt.status {
					t.Errorf("got %s in step %q, status %d, %q; want %s in step %q, status %d", got.Code, got.Step, got.Status, got.Message, tt.code, tt.step, tt.status)
				}
				if !strings.Contains(got.Hint, tt.hint) {
					t.Errorf("hint %q, want %q in it", got.Hint, tt.hint)
				}
				if strings.Contains(err.Error(), "secret/access/key") {
					t.Errorf("a secret in %v", err)
				}
				if end := got.AWSCode + ": " + got.AWSMessage + " (request id " + got.RequestID + ")"; got.AWSMessage != "" && !strings.HasSuffix(err.Error(), end) {
					t.Errorf("%v does not end with the answer: %q", err, end)
				}
			})
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*s3sink.Config)
		key    string
	}{
		"segment":     {func(*s3sink.Config) {}, "segment-logs/dummy-object.txt"},
		"path prefix": {func(c *s3sink.Config) { c.Bucket += "/path/prefix" }, "path/prefix/segment-logs/dummy-object.txt"},
		"rudderstack": {func(c *s3sink.Config) { c.KeyFormat = s3sink.RudderStackKeys }, "rudder-logs/dummy-object.txt"},
		"hive":        {func(c *s3sink.Config) { c.KeyFormat = s3sink.HiveKeys }, "events/_s3sink/dummy-object.txt"},
		"no folder":   {func(c *s3sink.Config) { c.KeyFormat = "{uuid}.gz"; c.Prefix = "p" }, "p/_s3sink/dummy-object.txt"},
		"keys":        {func(c *s3sink.Config) { c.Credentials = writer }, "segment-logs/dummy-object.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t)
			server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/writer", AccessKeyID: "AKIAWRITER", SecretAccessKey: "w"})
			tt.change(&cfg)
			sink := open(t, cfg)
			for range 2 { // the second Validate overwrites the object of the first
				if err := sink.Validate(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			all := server.Objects(s3sinktest.Bucket)
			if len(all) != 1 || all[0].Key != tt.key || all[0].Writes != 2 {
				t.Errorf("stored %+v, want %s twice", all, tt.key)
			}
			for _, r := range server.Requests() {
				if r.Operation != "PutObject" && r.Operation != "AssumeRole" && r.Operation != "GetCallerIdentity" {
					t.Errorf("a request for %s", r.Operation)
				}
			}
		})
	}
}

var writer = s3sink.AccessKeys("AKIAWRITER", "w", "")

// Given a Config, then Validate puts the dummy object with the headers of
// uploads, except If-None-Match.
func TestValidateSendsWhatUploadsSend(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/writer", AccessKeyID: "AKIAWRITER", SecretAccessKey: "w"})
	cfg.Credentials, cfg.CreateOnly = writer, s3sink.CreateOnlyOn
	cfg.Encryption, cfg.Metadata = s3sink.SSES3(), map[string]string{"team": "data"}
	cfg.Tags, cfg.StorageClass = map[string]string{"a": "b"}, "STANDARD_IA"
	sink := open(t, cfg)
	if err := sink.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTrack(t, sink, struct{}{})
	mustClose(t, sink)
	requests := server.Requests()
	if len(requests) != 2 {
		t.Fatalf("%d requests, want 2", len(requests))
	}
	probe, upload := requests[0].Header, requests[1].Header
	differ := []string{"Authorization", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Content-Length", "Content-Type",
		"If-None-Match", "X-Amz-Checksum-Crc32", "X-Amz-Content-Sha256", "X-Amz-Date", "User-Agent"}
	for name := range upload {
		ours := strings.HasPrefix(name, "X-Amz-Meta-S3sink-")
		if !ours && !slices.Contains(differ, name) && probe.Get(name) != upload.Get(name) {
			t.Errorf("%s: %q, an upload says %q", name, probe.Get(name), upload.Get(name))
		}
	}
	if probe.Get("If-None-Match") != "" || upload.Get("If-None-Match") != "*" {
		t.Errorf("If-None-Match is %q, and %q of an upload", probe.Get("If-None-Match"), upload.Get("If-None-Match"))
	}
}

// Given a change that has not reached every server of AWS, when the first
// attempt is refused, then Validate tries again and succeeds.
func TestValidateWaitsForAChange(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]s3sinktest.Fault{
		"of the trust policy": {Operation: "AssumeRole", Status: 403, Code: "AccessDenied", Match: withID(true), Times: 1},
		"of the permissions":  {Operation: "PutObject", Status: 403, Code: "AccessDenied", Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				server.Inject(fault)
				sink := open(t, cfg)
				began := time.Now()
				report, err := sink.ValidateReport(t.Context())
				if err != nil || report.Err != nil {
					t.Fatal(err, report)
				}
				if waited := time.Since(began); waited < time.Second || waited > 10*time.Second {
					t.Errorf("waited %v", waited)
				}
				if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "refused at first (403 AccessDenied)") {
					t.Errorf("warnings %q", report.Warnings)
				}
			})
		})
	}
}

// Given a ctx that ends during any step, then Validate returns when the ctx
// ends.
func TestValidateEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"GetCallerIdentity", "AssumeRole", "PutObject"} {
		for _, fault := range []s3sinktest.Fault{{Stall: true}, {Status: 403, Code: "AccessDenied"}} {
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				fault.Operation = operation
				server.Inject(fault)
				sink := open(t, cfg)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				began := time.Now()
				err := sink.Validate(ctx)
				if waited := time.Since(began); waited > 2*time.Second {
					t.Errorf("%s: returned after %v", operation, waited)
				}
				if err == nil && operation != "GetCallerIdentity" { // Validate does not need this call
					t.Errorf("%s: no error", operation)
				}
				if fault.Stall && !strings.Contains(err.Error(), "The context of Validate ended before there was an answer (context deadline exceeded). ") {
					t.Errorf("%s: %v, want it to say that the context ended", operation, err)
				}
			})
		}
	}
}

// Given parked uploads, when Validate succeeds, then they are retried at once.
func TestValidateWakesParkedUploads(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		sink := open(t, cfg)
		src, err := sink.Source("other")
		if err != nil {
			t.Fatal(err)
		}
		mustTrack(t, sink, struct{}{})
		mustTrack(t, src, struct{}{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sink.Flush(ctx); err == nil {
			t.Fatal("uploads are not parked")
		}
		if err := sink.Validate(t.Context()); err == nil {
			t.Error("Validate passed")
		}
		server.ClearFaults()
		if err := sink.Validate(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if st := sink.Stats(); st.Delivered != 2 {
			t.Errorf("%d events delivered a second after, want 2", st.Delivered)
		}
		mustClose(t, sink)
		if err := sink.Validate(t.Context()); !errors.Is(err, s3sink.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Given a role that does not demand its external id, then uploads do not use
// the session that Validate got without it.
func TestValidateDiscardsTheProbe(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}})
		sink := open(t, cfg)
		if err := sink.Validate(t.Context()); err == nil {
			t.Error("Validate passed")
		}
		mustTrack(t, sink, struct{}{})
		mustClose(t, sink)
		var assumedWith []string
		for _, r := range server.Requests() {
			if r.Operation == "AssumeRole" {
				assumedWith = append(assumedWith, r.Form.Get("ExternalId"))
			}
		}
		if want := []string{"", s3sinktest.ExternalID}; !slices.Equal(assumedWith, want) {
			t.Errorf("external ids %q, want %q: the upload's session is its own", assumedWith, want)
		}
	})
}

// Given a role without an external id, then Validate sends no probe, and warns
// if the role is in another account.
func TestValidateWithoutExternalID(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}})
	cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, "", s3sink.Via(service))
	report, err := open(t, cfg).ValidateReport(t.Context())
	if err != nil || report.Err != nil {
		t.Fatal(err, report)
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "demands no external id") {
		t.Errorf("warnings %q", report.Warnings)
	}
	if n := count(server, "AssumeRole"); n != 1 {
		t.Errorf("%d calls of AssumeRole, want 1", n)
	}
}

func TestValidationReport(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied", Message: "with an explicit deny in a resource-based policy"})
		report, err := open(t, cfg).ValidateReport(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const want = `s3://s3sinktest/segment-logs/dummy-object.txt
✓ region                   find the region of bucket s3sinktest: eu-west-1, as configured (0s)
✓ credentials              access key AKIAS3SINKTEST000000, as arn:aws:iam::210987654321:user/service (0s)
✓ role without external id assume arn:aws:iam::123456789012:role/S3Sink without the external id, which must fail: refused, as it must be (0s)
✓ role                     assume arn:aws:iam::123456789012:role/S3Sink with external id s3sinktest-external-id: session until 2000-01-01T01:00:00Z, as arn:aws:sts::123456789012:assumed-role/S3Sink/s3sink (0s)
✗ put object               s3://s3sinktest/segment-logs/dummy-object.txt: 403 AccessDenied (5s)
! refused at first (403 AccessDenied), and tried again after 5s: changes of IAM take some seconds to be known everywhere

Access Denied. Please add PutObject permissions to the IAM role in the AWS IAM Console. Learn more. (PutObjectDenied)
Cause: S3 refused the dummy object.
The store said: 403 AccessDenied: with an explicit deny in a resource-based policy
Request id: `
		if got := report.String(); !strings.HasPrefix(got, want) || !strings.Contains(got, "\nFix: Look for Deny in the bucket policy") {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		var colored strings.Builder
		if err := report.WriteColored(&colored); err != nil || !strings.Contains(colored.String(), "\x1b[31m✗\x1b[0m put object") {
			t.Errorf("colored: %v\n%s", err, &colored)
		}
		text, err := json.Marshal(report)
		if err != nil || !strings.Contains(string(text), `"code":"PutObjectDenied"`) || strings.Contains(string(text), "secret/access/key") {
			t.Errorf("JSON: %v\n%s", err, text)
		}
	})
}
