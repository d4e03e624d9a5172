package s3sinktest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestS3Signatures(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		session := assumeHop(t, srv)
		putObject := func(change func(*request)) request {
			q := request{method: "PUT", path: "/events/key", body: "body"}
			change(&q)
			return q
		}
		for _, test := range []struct {
			name, want string
			change     func(*request)
		}{
			{"unsigned payload", "200", func(q *request) {}},
			{"signed payload", "200", func(q *request) { q.payload = hexSHA256("body") }},
			{"escaped key", "200", func(q *request) { q.path = "/events/a%3Db/%C3%BC//%25+x" }},
			{"other payload", "400 XAmzContentSHA256Mismatch", func(q *request) { q.payload = hexSHA256("other") }},
			{"nonsense payload hash", "400 InvalidArgument", func(q *request) { q.payload = "abc" }},
			{"aws-chunked", "501 NotImplemented", func(q *request) { q.payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER" }},
			{"no payload hash", "400 InvalidRequest", func(q *request) {
				q.after = func(r *http.Request) {
					r.Header.Del("X-Amz-Content-Sha256")
				}
			}},
			{"anonymous", "403 AccessDenied", func(q *request) { q.unsigned = true }},
			{"presigned", "501 NotImplemented", func(q *request) { q.unsigned = true; q.path += "?X-Amz-Signature=abc" }},
			{"not a signature", "400 InvalidArgument", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }
			}},
			{"half a signature", "400 AuthorizationHeaderMalformed", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }
			}},
			{"unknown key", "403 InvalidAccessKeyId", func(q *request) {
				q.keys = aws.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: secret}
			}},
			{"wrong secret", "403 SignatureDoesNotMatch", func(q *request) {
				q.keys = aws.Credentials{AccessKeyID: keyID, SecretAccessKey: "wrong"}
			}},
			{"user with a token", "400 InvalidToken", func(q *request) {
				q.keys = aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret, SessionToken: "x"}
			}},
			{"session", "200", func(q *request) { q.keys = session }},
			{"session without token", "403 InvalidAccessKeyId", func(q *request) { q.keys = session; q.keys.SessionToken = "" }},
			{"session with another token", "400 InvalidToken", func(q *request) { q.keys = session; q.keys.SessionToken += "x" }},
			{"20 minutes late", "403 RequestTimeTooSkewed", func(q *request) { q.skew = -20 * time.Minute }},
			{"20 minutes early", "403 RequestTimeTooSkewed", func(q *request) { q.skew = 20 * time.Minute }},
			{"14 minutes late", "200", func(q *request) { q.skew = -14 * time.Minute }},
			{"no date", "403 AccessDenied", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Del("X-Amz-Date") }
			}},
			{"wrong region", "400 AuthorizationHeaderMalformed", func(q *request) { q.region = "us-east-1" }},
			{"wrong service", "400 AuthorizationHeaderMalformed", func(q *request) { q.service = "ec2" }},
			{"x-amz header added", "403 AccessDenied", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("X-Amz-Meta-Late", "x") }
			}},
			{"plain header added", "200", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("X-Forwarded-For", "x") }
			}},
			{"signed header changed", "403 SignatureDoesNotMatch", func(q *request) {
				q.header = map[string]string{"X-Amz-Meta-A": "1"}
				q.after = func(r *http.Request) { r.Header.Set("X-Amz-Meta-A", "2") }
			}},
			{"path changed", "403 SignatureDoesNotMatch", func(q *request) {
				q.after = func(r *http.Request) { r.URL.Path = "/events/other" }
			}},
			{"method changed", "403 SignatureDoesNotMatch", func(q *request) {
				q.after = func(r *http.Request) { r.Method = "DELETE" }
			}},
			{"signature changed", "403 SignatureDoesNotMatch", func(q *request) {
				q.after = func(r *http.Request) {
					r.Header.Set("Authorization", r.Header.Get("Authorization")[:200]+"0")
				}
			}},
		} {
			before := srv.StoredPuts()
			got := putObject(test.change).send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
			checkRecord(t, srv, test.name, got, srv.StoredPuts() > before)
		}
	})
}

// checkRecord compares the last request with the answer its client got.
func checkRecord(t *testing.T, srv *s3sinktest.Server, name string, got reply, stored bool) {
	t.Helper()
	requests := srv.Requests()
	last := requests[len(requests)-1]
	if last.Status != got.status || last.Code != got.code || last.Stored != stored || stored != (got.status == 200) {
		t.Errorf("%s: recorded %d %q stored=%t, answered %v", name, last.Status, last.Code, last.Stored, got)
	}
	if (last.Principal != "") != (got.status == 200) {
		t.Errorf("%s: answered %v to principal %q", name, got, last.Principal)
	}
}

func TestSTSSignatures(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		session := assumeHop(t, srv)
		for _, test := range []struct {
			name, want string
			change     func(*request)
		}{
			{"user", "200", func(q *request) {}},
			{"any region", "200", func(q *request) { q.region = "ap-south-1" }},
			{"anonymous", "403 MissingAuthenticationToken", func(q *request) { q.unsigned = true }},
			{"not a signature", "400 IncompleteSignature", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }
			}},
			{"unknown key", "403 InvalidClientTokenId", func(q *request) {
				q.keys = aws.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: secret}
			}},
			{"wrong secret", "403 SignatureDoesNotMatch", func(q *request) {
				q.keys = aws.Credentials{AccessKeyID: keyID, SecretAccessKey: "wrong"}
			}},
			{"other body", "403 SignatureDoesNotMatch", func(q *request) { q.payload = hexSHA256("other") }},
			{"session", "200", func(q *request) { q.keys = session }},
			{"session without token", "403 InvalidClientTokenId", func(q *request) { q.keys = session; q.keys.SessionToken = "" }},
			{"session with another token", "403 InvalidClientTokenId", func(q *request) { q.keys = session; q.keys.SessionToken += "x" }},
			{"20 minutes late", "403 SignatureDoesNotMatch", func(q *request) { q.skew = -20 * time.Minute }},
			{"20 minutes early", "403 SignatureDoesNotMatch", func(q *request) { q.skew = 20 * time.Minute }},
			{"no date", "400 IncompleteSignature", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Del("X-Amz-Date") }
			}},
			{"x-amz header added", "403 SignatureDoesNotMatch", func(q *request) {
				q.after = func(r *http.Request) { r.Header.Set("X-Amz-Late", "x") }
			}},
		} {
			q := stsRequest(map[string]string{"Action": "GetCallerIdentity"})
			test.change(&q)
			got := q.send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
			if got.header.Get("X-Amzn-Requestid") == "" {
				t.Errorf("%s: no request id", test.name)
			}
		}
	})
}

// TestSkewMessages checks what tells an expired STS signature from a wrong one.
func TestSkewMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		for skew, want := range map[time.Duration]string{
			-time.Hour: "Signature expired: 19991231T230000Z is now earlier than 19991231T234500Z (20000101T000000Z - 15 min.)",
			time.Hour:  "Signature not yet current: 20000101T010000Z is still later than 20000101T001500Z (20000101T000000Z + 15 min.)",
		} {
			q := stsRequest(map[string]string{"Action": "GetCallerIdentity"})
			q.skew = skew
			if got := q.send(t, srv); !strings.Contains(string(got.body), want) {
				t.Errorf("skew %v: got %s, want %s", skew, got.body, want)
			}
		}
	})
}

func TestWrongRegionNamesTheRightOne(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		got := request{method: "GET", path: "/events/key", region: "us-east-1"}.send(t, srv)
		if got.header.Get("X-Amz-Bucket-Region") != region || !strings.Contains(string(got.body), "<Region>"+region+"</Region>") {
			t.Errorf("got %v %v %s", got, got.header, got.body)
		}
	})
}

// TestPublishedSignatures sends the examples of AWS's own documentation, which
// no code of ours or of the SDK has signed:
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
// Their host is not one of the server's, so an accepted signature ends in 404.
func TestPublishedSignatures(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		time.Sleep(time.Until(time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)))
		const credential = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
		for _, test := range []struct {
			method, path, body string
			header             map[string]string
			signed, signature  string
		}{
			{
				"GET", "/test.txt", "",
				map[string]string{"Range": "bytes=0-9", "X-Amz-Content-Sha256": hexSHA256("")},
				"host;range;x-amz-content-sha256;x-amz-date",
				"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
			},
			{
				"PUT", "/test%24file.text", "Welcome to Amazon S3.",
				map[string]string{
					"Date":                 "Fri, 24 May 2013 00:00:00 GMT",
					"X-Amz-Storage-Class":  "REDUCED_REDUNDANCY",
					"X-Amz-Content-Sha256": hexSHA256("Welcome to Amazon S3."),
				},
				"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
				"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
			},
		} {
			q := request{method: test.method, path: test.path, body: test.body, header: test.header, unsigned: true}
			q.after = func(r *http.Request) {
				r.Host = "examplebucket.s3.amazonaws.com"
				r.Header.Set("X-Amz-Date", "20130524T000000Z")
				r.Header.Set("Authorization", fmt.Sprintf("%sSignedHeaders=%s,Signature=%s", credential, test.signed, test.signature))
			}
			if got := q.send(t, srv); got.status < 404 {
				t.Errorf("%s: got %v %s", test.path, got, got.body)
			}
			requests := srv.Requests()
			if who := requests[len(requests)-1].Principal; who != user {
				t.Errorf("%s: signature accepted from %q, want %q", test.path, who, user)
			}
		}
	})
}

func TestExpiredSession(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		session := assumeHop(t, srv)
		putObject := request{method: "PUT", path: "/events/key", body: "body", keys: session}
		identity := stsRequest(map[string]string{"Action": "GetCallerIdentity"})
		identity.keys = session

		time.Sleep(time.Hour - time.Second)
		if got := putObject.send(t, srv); got.String() != "200" {
			t.Errorf("a second before the end: got %v, want 200", got)
		}
		time.Sleep(time.Second)
		if got, want := putObject.send(t, srv).String(), "400 ExpiredToken"; got != want {
			t.Errorf("s3 at the end: got %s, want %s", got, want)
		}
		if got, want := identity.send(t, srv).String(), "403 ExpiredToken"; got != want {
			t.Errorf("sts at the end: got %s, want %s", got, want)
		}
	})
}

func TestSessionActions(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		if _, err := s3Client(srv, userKeys).PutObject(t.Context(), put("a", "x")); err != nil {
			t.Fatal(err)
		}
		session := assumeHop(t, srv)
		for _, test := range []struct {
			actions []string
			want    map[string]string // by method and path
		}{
			{nil, map[string]string{
				"PUT /events/b": "200", "GET /events/a": "200", "GET /events/none": "404 NoSuchKey",
				"GET /events?list-type=2": "200", "HEAD /events": "200",
			}},
			{[]string{"s3:PutObject"}, map[string]string{
				"PUT /events/b": "200", "GET /events/a": "403 AccessDenied", "HEAD /events/a": "403",
				"GET /events?list-type=2": "403 AccessDenied", "HEAD /events": "403", "PUT /none/b": "404 NoSuchBucket",
			}},
			{[]string{"s3:GetObject"}, map[string]string{
				"PUT /events/b": "403 AccessDenied", "GET /events/a": "200", "GET /events/none": "403 AccessDenied",
			}},
			{[]string{}, map[string]string{"PUT /events/b": "403 AccessDenied", "GET /events/a": "403 AccessDenied"}},
		} {
			srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Actions: test.actions})
			for what, want := range test.want {
				method, path, _ := strings.Cut(what, " ")
				if got := (request{method: method, path: path, keys: session}).send(t, srv); got.String() != want {
					t.Errorf("%q: %s: got %v, want %s", test.actions, what, got, want)
				}
			}
		}

		got := request{method: "GET", path: "/events/a", keys: session}.send(t, srv)
		want := `User: arn:aws:sts::111122223333:assumed-role/hop/test is not authorized to perform: s3:GetObject on resource: &#34;arn:aws:s3:::events/a&#34;`
		if !strings.Contains(string(got.body), want) {
			t.Errorf("got %s, want %s", got.body, want)
		}
	})
}

func TestTagsNeedAnAction(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Actions: []string{"s3:PutObject"}})
		q := request{method: "PUT", path: "/events/a", keys: assumeHop(t, srv), header: map[string]string{"X-Amz-Tagging": "a=b"}}
		if got := q.send(t, srv); got.String() != "403 AccessDenied" {
			t.Errorf("got %v, want 403 AccessDenied", got)
		}
		srv.AddRole(s3sinktest.Role{ARN: hop, Actions: []string{"s3:PutObject", "s3:PutObjectTagging"}})
		if got := q.send(t, srv); got.String() != "200" {
			t.Errorf("with the action: got %v, want 200", got)
		}
	})
}

// assumeHop returns keys of a session of the first role.
func assumeHop(t *testing.T, srv *s3sinktest.Server) aws.Credentials {
	t.Helper()
	out, err := stsClient(srv, userKeys).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(hop), RoleSessionName: aws.String("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return aws.Credentials{
		AccessKeyID:     *out.Credentials.AccessKeyId,
		SecretAccessKey: *out.Credentials.SecretAccessKey,
		SessionToken:    *out.Credentials.SessionToken,
	}
}
