package s3sinktest_test

import (
	"strings"
	"testing"

	"github.com/s3sink/s3sink/s3sinktest"
)

// onEvents is a bucket policy's statement on all objects of the bucket.
func onEvents(effect, principal, action, more string) string {
	return statement(effect, action, "arn:aws:s3:::events/*", `,"Principal":`+principal+more)
}

func TestBucketPolicy(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const put = `User: ` + user + ` is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::events/a" `
		const explicit = put + "with an explicit deny in a resource-based policy"
		const implicit = put + "because no identity-based policy allows the s3:PutObject action"
		overTLS := strings.HasPrefix(srv.URL(), "https:")
		ifPlain := func(message string) string {
			if overTLS {
				return ""
			}
			return message
		}
		read := allow("s3:GetObject", "*")
		encrypted := onEvents("Deny", `"*"`, "s3:PutObject", `,"Condition":{"StringNotEquals":{"s3:x-amz-server-side-encryption":"AES256"}}`)
		for _, test := range []struct{ name, bucket, identity, sse, want string }{
			{"none", "", "", "", ""},
			{"encryption demanded, not asked for", encrypted, "", "", explicit},
			{"encryption demanded, asked for", encrypted, "", "AES256", ""},
			{"TLS demanded", onEvents("Deny", `{"AWS":"*"}`, "s3:*", `,"Condition":{"Bool":{"aws:SecureTransport":"false"}}`), "", "", ifPlain(explicit)},
			{"this user denied", onEvents("Deny", `{"AWS":"`+user+`"}`, "s3:*", ""), "", "", explicit},
			{"this account denied", onEvents("Deny", `{"AWS":"111122223333"}`, "s3:*", ""), "", "", explicit},
			{"another account denied", onEvents("Deny", `{"AWS":["444455556666"]}`, "s3:*", ""), "", "", ""},
			{"a service denied", onEvents("Deny", `{"Service":"logging.s3.amazonaws.com"}`, "s3:*", ""), "", "", ""},
			{"user that may not", "", read, "", implicit},
			{"user that may not, allowed here", onEvents("Allow", `{"AWS":"`+user+`"}`, "s3:PutObject", ""), read, "", ""},
			{"user that may not, account allowed here", onEvents("Allow", `{"AWS":"111122223333"}`, "s3:PutObject", ""), read, "", implicit},
		} {
			srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: test.identity})
			settings := s3sinktest.BucketSettings{}
			if test.bucket != "" {
				settings.Policy = statements(test.bucket)
			}
			srv.ConfigureBucket(events, settings)
			q := request{method: "PUT", path: "/events/a", header: map[string]string{}}
			if test.sse != "" {
				q.header["X-Amz-Server-Side-Encryption"] = test.sse
			}
			checkDenial(t, test.name, q.send(t, srv), test.want)
		}
	})
}

// TestForeignBucket writes to a bucket of another account, which takes its
// policy as well as one's own.
func TestForeignBucket(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const owner = "444455556666"
		for _, test := range []struct{ name, bucket, identity, want string }{
			{"no bucket policy", "", "", "Access Denied"},
			{"bucket policy for the user", onEvents("Allow", `{"AWS":"`+user+`"}`, "s3:PutObject", ""), "", ""},
			{"bucket policy for the account", onEvents("Allow", `{"AWS":"arn:aws:iam::111122223333:root"}`, "s3:PutObject", ""), "", ""},
			{"bucket policy for others", onEvents("Allow", `{"AWS":"444455556666"}`, "s3:PutObject", ""), "", "Access Denied"},
			{"bucket policy alone", onEvents("Allow", `{"AWS":"`+user+`"}`, "s3:PutObject", ""), allow("s3:GetObject", "*"), "Access Denied"},
		} {
			srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: test.identity})
			settings := s3sinktest.BucketSettings{Owner: owner}
			if test.bucket != "" {
				settings.Policy = statements(test.bucket)
			}
			srv.ConfigureBucket(events, settings)
			checkDenial(t, test.name, request{method: "PUT", path: "/events/a"}.send(t, srv), test.want)
		}

		srv.ConfigureBucket(events, s3sinktest.BucketSettings{Owner: owner, Policy: statements(onEvents("Allow", `"*"`, "s3:*", ""))})
		srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret})
		for expected, want := range map[string]string{owner: "200", s3sinktest.AccountID: "403 AccessDenied"} {
			q := request{method: "PUT", path: "/events/a", header: map[string]string{"X-Amz-Expected-Bucket-Owner": expected}}
			if got := q.send(t, srv); got.String() != want {
				t.Errorf("expected owner %s: got %v, want %s", expected, got, want)
			}
		}
	})
}

func TestBucketSettingsRefused(t *testing.T) {
	t.Parallel()
	srv := s3sinktest.NewServer(s3sinktest.InMemory())
	defer srv.Close()
	srv.CreateBucket(events, region)
	for name, set := range map[string]func(){
		"no bucket":       func() { srv.ConfigureBucket("none", s3sinktest.BucketSettings{}) },
		"no bucket moved": func() { srv.MoveBucket("none", region) },
		"encryption":      func() { srv.ConfigureBucket(events, s3sinktest.BucketSettings{Encryption: "ROT13"}) },
		"key with SSE-S3": func() { srv.ConfigureBucket(events, s3sinktest.BucketSettings{KMSKeyID: eventsKey}) },
		"ownership":       func() { srv.ConfigureBucket(events, s3sinktest.BucketSettings{Ownership: "Everybody"}) },
		"no principal":    func() { srv.ConfigureBucket(events, s3sinktest.BucketSettings{Policy: allow("s3:*", "*")}) },
		"odd principal": func() {
			srv.ConfigureBucket(events, s3sinktest.BucketSettings{Policy: bucketAllow("app", "s3:*", "arn:aws:s3:::events/*")})
		},
		"federated": func() {
			srv.ConfigureBucket(events, s3sinktest.BucketSettings{Policy: statements(onEvents("Allow", `{"Federated":"x"}`, "s3:*", ""))})
		},
		"key ARN":    func() { srv.AddKMSKey(s3sinktest.KMSKey{ARN: "key/1"}) },
		"key state":  func() { srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey, State: "Tired"}) },
		"key policy": func() { srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey, Policy: "{"}) },
	} {
		if panicOf(set) == "" {
			t.Errorf("%s: accepted", name)
		}
	}
}
