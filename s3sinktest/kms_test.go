package s3sinktest_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	sseHeader    = "X-Amz-Server-Side-Encryption"
	sseKeyHeader = sseHeader + "-Aws-Kms-Key-Id"
)

func TestKMSKeys(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		key := func(name, region, account string) string {
			return "arn:aws:kms:" + region + ":" + account + ":key/" + name
		}
		const own = "111122223333"
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey, Aliases: []string{"alias/events"}})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("off", region, own), State: s3sinktest.KeyDisabled})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("doomed", region, own), State: s3sinktest.KeyPendingDeletion})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("rsa", region, own), Asymmetric: true})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("far", "us-east-1", own)})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("shared", region, "444455556666"), Aliases: []string{"alias/shared"}, Policy: bucketAllow(user, "kms:*", "*")})
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key("private", region, "444455556666")})
		for _, test := range []struct{ name, want, arn string }{
			{eventsKey, "200", eventsKey},
			{eventsKey[strings.Index(eventsKey, "/")+1:], "200", eventsKey},
			{"alias/events", "200", eventsKey},
			{"arn:aws:kms:eu-west-1:111122223333:alias/events", "200", eventsKey},
			{"absent", "400 KMS.NotFoundException Invalid keyId 'absent'", ""},
			{"alias/absent", "400 KMS.NotFoundException Alias arn:aws:kms:eu-west-1:111122223333:alias/absent is not found.", ""},
			{key("absent", region, own), "400 KMS.NotFoundException Key '" + key("absent", region, own) + "' does not exist", ""},
			{key("far", "us-east-1", own), "400 KMS.NotFoundException Invalid arn us-east-1", ""},
			{"off", "400 KMS.DisabledException " + key("off", region, own) + " is disabled.", ""},
			{"doomed", "400 KMS.KMSInvalidStateException " + key("doomed", region, own) + " is pending deletion.", ""},
			{"rsa", "400 KMS.InvalidKeyUsageException", ""},
			{key("shared", region, "444455556666"), "200", key("shared", region, "444455556666")},
			{"arn:aws:kms:eu-west-1:444455556666:alias/shared", "200", key("shared", region, "444455556666")},
			{"alias/shared", "400 KMS.NotFoundException", ""}, // of the caller's account
			{key("private", region, "444455556666"), "403 AccessDenied User: " + user + " is not authorized to perform: kms:GenerateDataKey on this resource", ""},
		} {
			// By the request, and by the bucket.
			q := request{method: "PUT", path: "/events/a", header: map[string]string{sseHeader: "aws:kms", sseKeyHeader: test.name}}
			srv.ConfigureBucket(events, s3sinktest.BucketSettings{})
			checkKey(t, "by request: "+test.name, q.send(t, srv), test.want, test.arn)
			srv.ConfigureBucket(events, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: test.name})
			q.header = nil
			checkKey(t, "by bucket: "+test.name, q.send(t, srv), test.want, test.arn)
		}
	})
}

func checkKey(t *testing.T, name string, got reply, want, arn string) {
	t.Helper()
	said := strings.TrimSpace(got.String() + " " + got.message)
	if !strings.HasPrefix(said, want) || got.header.Get(sseKeyHeader) != arn {
		t.Errorf("%s: got %s with key %q, want %s with %q", name, said, got.header.Get(sseKeyHeader), want, arn)
	}
}

// TestKMSSessions needs kms:GenerateDataKey of the role and of the session.
func TestKMSSessions(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey})
		srv.ConfigureBucket(events, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: eventsKey})
		put := statement("Allow", "s3:PutObject", "*", "")
		use := func(key, via string) string {
			return statement("Allow", "kms:GenerateDataKey", key, `,"Condition":{"StringLike":{"kms:ViaService":"`+via+`"}}`)
		}
		const session = "User: arn:aws:sts::111122223333:assumed-role/hop/test is not authorized to perform: kms:GenerateDataKey on resource: " + eventsKey
		const noSession = session + " because no session policy allows the kms:GenerateDataKey action"
		const noIdentity = session + " because no identity-based policy allows the kms:GenerateDataKey action"
		for _, test := range []struct{ name, role, session, want string }{
			{"both", statements(put, use("*", "*")), statements(put, use(eventsKey, "s3.*.amazonaws.com")), ""},
			{"this region", statements(put, use("*", "s3.eu-west-1.amazonaws.com")), statements(put, use(eventsKey, "s3.eu-west-1.amazonaws.com")), ""},
			{"another region", statements(put, use("*", "*")), statements(put, use("*", "s3.us-east-1.amazonaws.com")), noSession},
			{"another service", statements(put, use("*", "*")), statements(put, use("*", "sqs.*.amazonaws.com")), noSession},
			{"another key", statements(put, use("*", "*")), statements(put, use(eventsKey+"0", "*")), noSession},
			{"no use in the session", statements(put, use("*", "*")), statements(put), noSession},
			{"no use in the role", statements(put), statements(put, use("*", "*")), noIdentity},
		} {
			srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Policy: test.role})
			q := request{method: "PUT", path: "/events/a", keys: assumeHopWith(t, srv, test.session)}
			checkDenial(t, test.name, q.send(t, srv), test.want)
		}

		// SSE-S3 overrides the bucket's default, and needs no key.
		srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}})
		q := request{method: "PUT", path: "/events/a", keys: assumeHopWith(t, srv, statements(put)), header: map[string]string{sseHeader: "AES256"}}
		if got := q.send(t, srv); got.String() != "200" || got.header.Get(sseHeader) != "AES256" {
			t.Errorf("with AES256: got %v %s", got, got.message)
		}
	})
}

// TestKeyPolicy takes the use of a key away, also when the identity has it.
func TestKeyPolicy(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, test := range []struct{ name, key, identity, want string }{
			{"default", "", "", ""},
			{"default, identity that may not", "", allow("s3:*", "*"), "because no identity-based policy allows the kms:GenerateDataKey action"},
			{"user named", bucketAllow(user, "kms:GenerateDataKey*", "*"), allow("s3:*", "*"), ""},
			{"others named", bucketAllow(sink, "kms:*", "*"), "", "because no resource-based policy allows the kms:GenerateDataKey action"},
			{"denied", statements(statement("Deny", "kms:*", "*", `,"Principal":"*"`)), "", "with an explicit deny in a resource-based policy"},
		} {
			srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey, Policy: test.key})
			srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: test.identity})
			want := test.want
			if want != "" {
				want = "User: " + user + " is not authorized to perform: kms:GenerateDataKey on resource: " + eventsKey + " " + want
			}
			q := request{method: "PUT", path: "/events/a", header: map[string]string{sseHeader: "aws:kms", sseKeyHeader: eventsKey}}
			checkDenial(t, test.name, q.send(t, srv), want)
		}
	})
}

// TestManagedKey encrypts with aws/s3, which every account has.
func TestManagedKey(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: allow("s3:*", "*")})
		for _, name := range []string{"", "alias/aws/s3"} {
			q := request{method: "PUT", path: "/events/a", header: map[string]string{sseHeader: "aws:kms"}}
			if name != "" {
				q.header[sseKeyHeader] = name
			}
			got := q.send(t, srv)
			if got.String() != "200" || !strings.HasPrefix(got.header.Get(sseKeyHeader), "arn:aws:kms:eu-west-1:111122223333:key/") {
				t.Errorf("%q: got %v %v", name, got, got.header)
			}
			if got := (request{method: "GET", path: "/events/a"}).send(t, srv); got.String() != "200" {
				t.Errorf("%q: GET: got %v %s", name, got, got.message)
			}
		}
		srv.ConfigureBucket(events, s3sinktest.BucketSettings{Owner: "444455556666", Encryption: "aws:kms",
			Policy: bucketAllow(user, "s3:*", "arn:aws:s3:::events/*")})
		got := request{method: "PUT", path: "/events/a"}.send(t, srv)
		checkKey(t, "of another account's bucket", got, "400 KMS.NotFoundException Invalid keyId aws/s3", "")
	})
}

func TestDecrypt(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey})
		request{method: "PUT", path: "/events/a", header: map[string]string{sseHeader: "aws:kms", sseKeyHeader: eventsKey}}.send(t, srv)
		get := request{method: "GET", path: "/events/a", keys: assumeHopWith(t, srv, allow("s3:*", "*"))}
		if got := get.send(t, srv); got.String() != "403 AccessDenied" || !strings.Contains(got.message, "kms:Decrypt") {
			t.Errorf("GET: got %v %s", got, got.message)
		}
		get.method = "HEAD"
		if got := get.send(t, srv); got.String() != "200" || got.header.Get(sseKeyHeader) != eventsKey {
			t.Errorf("HEAD: got %v", got)
		}
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey, State: s3sinktest.KeyDisabled})
		if got := (request{method: "GET", path: "/events/a"}).send(t, srv); got.String() != "400 KMS.DisabledException" {
			t.Errorf("GET with the key disabled: got %v", got)
		}
	})
}

// TestEffectiveEncryption looks at what the answer and the object say.
func TestEffectiveEncryption(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey})
		byKey := s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: eventsKey, BucketKey: true}
		const bucketKey, context = sseHeader + "-Bucket-Key-Enabled", sseHeader + "-Context"
		team := map[string]string{"team": "data"}
		for _, test := range []struct {
			name          string
			bucket        s3sinktest.BucketSettings
			header        map[string]string
			sse, key, bkt string
			context       map[string]string
		}{
			{"new bucket", s3sinktest.BucketSettings{}, nil, "AES256", "", "", nil},
			{"SSE-S3 bucket", s3sinktest.BucketSettings{Encryption: "AES256"}, nil, "AES256", "", "", nil},
			{"SSE-KMS bucket", byKey, nil, "aws:kms", eventsKey, "true", nil},
			{"SSE-KMS bucket, without its key", byKey, map[string]string{bucketKey: "false"}, "aws:kms", eventsKey, "", nil},
			{"SSE-KMS bucket, SSE-S3 request", byKey, map[string]string{sseHeader: "AES256"}, "AES256", "", "", nil},
			{"SSE-KMS request", s3sinktest.BucketSettings{}, map[string]string{sseHeader: "aws:kms", sseKeyHeader: eventsKey, context: "eyJ0ZWFtIjoiZGF0YSJ9"},
				"aws:kms", eventsKey, "", team},
			{"DSSE-KMS request", s3sinktest.BucketSettings{}, map[string]string{sseHeader: "aws:kms:dsse", sseKeyHeader: eventsKey}, "aws:kms:dsse", eventsKey, "", nil},
			{"SSE-KMS request, bucket key", s3sinktest.BucketSettings{}, map[string]string{sseHeader: "aws:kms", sseKeyHeader: eventsKey, bucketKey: "true"},
				"aws:kms", eventsKey, "true", nil},
		} {
			srv.ConfigureBucket(events, test.bucket)
			got := request{method: "PUT", path: "/events/a", header: test.header}.send(t, srv)
			h := got.header
			if got.status != 200 || h.Get(sseHeader) != test.sse || h.Get(sseKeyHeader) != test.key || h.Get(bucketKey) != test.bkt {
				t.Errorf("%s: got %v %v", test.name, got, h)
			}
			obj, _ := srv.Object(events, "a")
			if obj.SSE != test.sse || obj.SSEKMSKeyID != test.key || obj.BucketKey != (test.bkt == "true") || !maps.Equal(obj.EncryptionContext, test.context) {
				t.Errorf("%s: stored %+v", test.name, obj)
			}
		}
		for _, header := range []map[string]string{
			{sseHeader: "aws:kms", context: "*"},
			{sseHeader: "aws:kms", context: "WyJhIl0="}, // ["a"]
			{sseHeader: "AES256", context: "eyJ0ZWFtIjoiZGF0YSJ9"},
			{bucketKey: "yes"},
		} {
			if got := (request{method: "PUT", path: "/events/a", header: header}).send(t, srv); got.String() != "400 InvalidArgument" {
				t.Errorf("%v: got %v", header, got)
			}
		}
	})
}

// TestChinaPartition names buckets and S3 as that partition does.
func TestChinaPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		const key = "arn:aws-cn:kms:cn-north-1:111122223333:key/1"
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: key, Policy: bucketAllow(user, "kms:*", "*")})
		srv.CreateBucket("china", "cn-north-1")
		srv.ConfigureBucket("china", s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: key})
		policy := statements(statement("Allow", "s3:*", "arn:aws-cn:s3:::china/*", ""),
			statement("Allow", "kms:*", "*", `,"Condition":{"StringEquals":{"kms:ViaService":"s3.cn-north-1.amazonaws.com.cn"}}`))
		q := request{method: "PUT", path: "/china/a", region: "cn-north-1", keys: aws.Credentials{}}
		srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: policy})
		if got := q.send(t, srv); got.String() != "200" || got.header.Get(sseKeyHeader) != key {
			t.Errorf("got %v %s", got, got.message)
		}
	})
}
