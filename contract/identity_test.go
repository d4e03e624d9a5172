package contract

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// asking returns a request whose answer depends only on the credentials.
func asking(name string) request { return put("who/"+name, hello) }

const aboutWho = `With its STS on, a radosgw answers 403 AccessDenied to a wrong secret and to an unknown access key.
With ` + "`rgw_s3_auth_use_sts = false`" + `, its default, it answers as AWS does.

`

var who = []expectation{
	{
		name:    "a wrong secret",
		aws:     "403 SignatureDoesNotMatch",
		differs: differs{ceph: "403 AccessDenied"},
		see:     one(func(s *site) request { return asking("secret").as(keys{s.owner.id, "wrong", s.owner.token}) }),
	},
	{
		name:    "an access key that does not exist",
		aws:     "403 InvalidAccessKeyId",
		differs: differs{ceph: "403 AccessDenied"},
		see:     one(func(s *site) request { return asking("unknown").as(keys{id: "AKIAUNKNOWN000000000", secret: "s"}) }),
	},
	{
		name:    "no credentials",
		aws:     "403 AccessDenied",
		differs: differs{ceph: "404 NoSuchBucket"},
		see: one(func(*site) request {
			r := asking("nobody")
			r.anonymous = true
			return r
		}),
	},
	{
		name:    "Authorization: empty",
		aws:     "403 AccessDenied",
		note:    noteHeader,
		differs: differs{minio: "400 InvalidRequest", ceph: "404 NoSuchBucket"},
		see:     one(func(*site) request { return withAuthorization(asking("empty"), "") }),
	},
	{
		name:    "Authorization: Basic",
		aws:     "400 InvalidArgument",
		note:    noteHeader,
		differs: differs{minio: "400 InvalidRequest"},
		see:     one(func(*site) request { return withAuthorization(asking("basic"), "Basic aGVsbG86aGVsbG8=") }),
	},
	{
		name:    "Authorization: AWS4-HMAC-SHA256 without parameters",
		aws:     "400 AuthorizationHeaderMalformed",
		note:    noteHeader,
		differs: differs{minio: "400 MissingFields", ceph: "400 InvalidArgument"},
		see:     one(func(*site) request { return withAuthorization(asking("malformed"), "AWS4-HMAC-SHA256 hello") }),
	},
	{
		name:    "an x-amz- header that is not signed",
		aws:     "403 AccessDenied",
		differs: differs{minio: "200", ceph: "200"},
		see: one(func(*site) request {
			r := asking("unsigned")
			r.edit = func(req *http.Request) { req.Header.Set("x-amz-meta-later", "1") }
			return r
		}),
	},
	{
		name:    "a header changed after signing",
		aws:     "403 SignatureDoesNotMatch",
		differs: differs{ceph: "403 AccessDenied"},
		see: one(func(*site) request {
			r := put("who/changed", hello, "x-amz-meta-m", "1")
			r.edit = func(req *http.Request) { req.Header.Set("x-amz-meta-m", "2") }
			return r
		}),
	},
	{
		name:    "the wrong region",
		aws:     "400 AuthorizationHeaderMalformed, eu-west-1 is right",
		differs: differs{versitygw: "400 AuthorizationHeaderMalformed", ceph: "200"},
		see: func(t *testing.T, s *site) string {
			r := asking("region")
			r.region = "us-west-2"
			a := s.do(t, r)
			return a.String() + regionTold(a)
		},
	},
	{
		name: "a clock 20 minutes slow",
		aws:  "403 RequestTimeTooSkewed",
		see: one(func(*site) request {
			r := asking("slow")
			r.at = time.Now().Add(-20 * time.Minute)
			return r
		}),
	},
	{
		name: "a clock 20 minutes fast",
		aws:  "403 RequestTimeTooSkewed",
		see: one(func(*site) request {
			r := asking("fast")
			r.at = time.Now().Add(20 * time.Minute)
			return r
		}),
	},
	{
		name: "a clock 10 minutes slow",
		aws:  "200",
		see: one(func(*site) request {
			r := asking("nearly")
			r.at = time.Now().Add(-10 * time.Minute)
			return r
		}),
	},
	{
		name: "a session",
		aws:  "200",
		note: noteSession,
		see: func(t *testing.T, s *site) string {
			return s.do(t, put("allowed/session", hello).as(s.session(t, time.Hour))).String()
		},
	},
	{
		name:    "a session without its token",
		aws:     "403 InvalidAccessKeyId",
		note:    "From published error reports.",
		differs: differs{minio: "403 InvalidTokenId", versitygw: "400 InvalidToken", ceph: "403 AccessDenied"},
		see: func(t *testing.T, s *site) string {
			k := s.session(t, time.Hour)
			k.token = ""
			return s.do(t, put("allowed/no-token", hello).as(k)).String()
		},
	},
	{
		name:    "a session with another's token",
		aws:     "400 InvalidToken",
		differs: differs{minio: "403 InvalidTokenId", ceph: "403 AccessDenied"},
		see: func(t *testing.T, s *site) string {
			k := s.session(t, time.Hour)
			k.token = s.session(t, time.Hour).token
			return s.do(t, put("allowed/other-token", hello).as(k)).String()
		},
	},
	{
		name:    "a session with an invalid token",
		aws:     "400 InvalidToken",
		differs: differs{minio: "403 InvalidTokenId", ceph: "400 InvalidArgument"},
		see: func(t *testing.T, s *site) string {
			k := s.session(t, time.Hour)
			k.token = "hello"
			return s.do(t, put("allowed/bogus-token", hello).as(k)).String()
		},
	},
	{
		name:    "an access key with an invalid token",
		aws:     "400 InvalidToken",
		differs: differs{minio: "403 InvalidTokenId", ceph: "400 InvalidArgument"},
		see: one(func(s *site) request {
			return asking("token").as(keys{s.owner.id, s.owner.secret, "hello"})
		}),
	},
	{
		name:    "a session that expires",
		aws:     "200, then 400 ExpiredToken",
		differs: differs{ceph: "200, then 403 AccessDenied"},
		note:    noteSession,
		needs:   []need{needsShortSession},
		see: func(t *testing.T, s *site) string {
			k := s.session(t, shortLife)
			first := s.do(t, put("allowed/short", hello).as(k))
			return fmt.Sprintf("%s, then %s", first, s.once(t, k))
		},
	},
}

// noteSession is about sessions on versitygw: it checks them itself, except for the
// answer to an expired session.
const noteSession = "versitygw gets its sessions, and its answer to an expired session, from the tests."

const noteHeader = "AWS documents the codes, but not the code of each header; from published error reports."

// withAuthorization replaces the header that the signature is in.
func withAuthorization(r request, header string) request {
	r.edit = func(req *http.Request) { req.Header.Set("Authorization", header) }
	return r
}

// once repeats a PUT until the session has ended, and returns the answer.
func (s *site) once(t *testing.T, k keys) answer {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	var a answer
	for range 100 {
		if a = s.do(t, put("allowed/short", hello).as(k)); a.status != http.StatusOK {
			return a
		}
		<-again.C
	}
	return a
}

func regionTold(a answer) string {
	if r := a.header.Get("x-amz-bucket-region"); r != "" {
		return ", " + r + " is right"
	}
	return ""
}

var permissions = []expectation{
	{
		name: "s3:PutObject: put",
		aws:  "200",
		see:  one(func(s *site) request { return put("allowed/put", hello).as(s.writer) }),
	},
	{
		name:    "s3:PutObject: put, and the bucket's owner gets it",
		aws:     "200, then 200",
		differs: differs{ceph: "200, then 403 AccessDenied"},
		note:    "On AWS if the writer belongs to the bucket's account, or the bucket has no ACLs.",
		see: func(t *testing.T, s *site) string {
			return fmt.Sprintf("%s, then %s", s.do(t, put("allowed/owner", hello).as(s.writer)), s.object(t, "allowed/owner"))
		},
	},
	{
		name: "s3:PutObject: put outside of its folder",
		aws:  "403 AccessDenied",
		see:  one(func(s *site) request { return put("outside/put", hello).as(s.writer) }),
	},
	{
		name: "s3:PutObject: get",
		aws:  "403 AccessDenied",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("allowed/get", hello))
			return s.do(t, get("allowed/get").as(s.writer)).String()
		},
	},
	{
		name: "s3:PutObject: get an object that does not exist",
		aws:  "403 AccessDenied",
		see:  one(func(s *site) request { return get("allowed/absent").as(s.writer) }),
	},
	{
		name: "s3:PutObject: HEAD",
		aws:  "403",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("allowed/head", hello))
			return s.do(t, to(http.MethodHead, "allowed/head", "").as(s.writer)).String()
		},
	},
	{
		name: "s3:PutObject: list",
		aws:  "403 AccessDenied",
		see:  one(func(s *site) request { return to(http.MethodGet, "", "").with("list-type", "2").as(s.writer) }),
	},
	{
		name: "s3:PutObject: delete",
		aws:  "403 AccessDenied",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("allowed/delete", hello))
			return s.do(t, to(http.MethodDelete, "allowed/delete", "").as(s.writer)).String()
		},
		differs: differs{double: "405 MethodNotAllowed"},
	},
	{
		name:    "s3:PutObject: put with tags",
		aws:     "403 AccessDenied",
		see:     one(func(s *site) request { return put("allowed/tags", hello, "x-amz-tagging", "a=b").as(s.writer) }),
		differs: differs{minio: "200", ceph: "200"},
	},
	{
		name:    "8 MiB, refused",
		aws:     "403 AccessDenied",
		differs: differs{versitygw: "no answer, at times"},
		see: func(t *testing.T, s *site) string {
			return s.large(t, put("outside/large", "").as(s.writer))
		},
	},
	{
		name:    "8 MiB, with a wrong secret",
		aws:     "403 SignatureDoesNotMatch",
		differs: differs{versitygw: "no answer, at times", ceph: "403 AccessDenied"},
		see: func(t *testing.T, s *site) string {
			return s.large(t, put("who/large", "").as(keys{s.owner.id, "wrong", s.owner.token}))
		},
	},
}
