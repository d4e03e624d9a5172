package s3sinktest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/s3sinktest"
)

// statements is a policy of them.
func statements(list ...string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(list, ",") + `]}`
}

func statement(effect, action, resource, more string) string {
	return fmt.Sprintf(`{"Effect":%q,"Action":%q,"Resource":%q%s}`, effect, action, resource, more)
}

func allow(action, resource string) string {
	return statements(statement("Allow", action, resource, ""))
}

func bucketAllow(principal, action, resource string) string {
	return statements(statement("Allow", action, resource, `,"Principal":{"AWS":"`+principal+`"}`))
}

// allowIf is a policy whose condition is the JSON given.
func allowIf(condition string) string {
	return statements(statement("Allow", "s3:*", "*", `,"Condition":`+condition))
}

// assumeHopWith returns keys of a session of the first role with a policy.
func assumeHopWith(t *testing.T, srv *s3sinktest.Server, policy string) aws.Credentials {
	t.Helper()
	q := stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": hop, "RoleSessionName": "test", "Policy": policy})
	return keysOf(t, q.send(t, srv))
}

func TestPolicyMatching(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		put := request{method: "PUT", path: "/events/dir/a*b"}
		tls := `{"Bool":{"aws:SecureTransport":"true"}}`
		for policy, allowed := range map[string]bool{
			"":                                              true,
			statements():                                    false,
			allow("*", "*"):                                 true,
			allow("s3:PutObject", "*"):                      true,
			allow("S3:putobject", "*"):                      true,
			allow("s3:Put*", "*"):                           true,
			allow("s3:PutObjec?", "*"):                      true,
			allow("s3:PutObject?", "*"):                     false,
			allow("s3:GetObject", "*"):                      false,
			allow("sts:*", "*"):                             false,
			allow("s3:*", "arn:aws:s3:::events/*"):          true,
			allow("s3:*", "arn:aws:s3:::*"):                 true,
			allow("s3:*", "arn:aws:s3:::events/dir/a*b"):    true,
			allow("s3:*", "arn:aws:s3:::events/dir/a${*}b"): true,
			allow("s3:*", "arn:aws:s3:::events/dir/a${?}b"): false,
			allow("s3:*", "arn:aws:s3:::events/dir/a?b"):    true,
			allow("s3:*", "arn:aws:s3:::e*s/*/a*"):          true,
			allow("s3:*", "arn:aws:s3:::e*s/*/a*c"):         false,
			allow("s3:*", "arn:aws:s3:::events/dir"):        false,
			allow("s3:*", "arn:aws:s3:::events/DIR/*"):      false,
			allow("s3:*", "arn:aws-cn:s3:::events/*"):       false,
			allow("s3:*", "arn:aws:s3:::events"):            false,

			statements(statement("Allow", "s3:*", "*", ""), statement("Deny", "s3:PutObject", "*", "")): false,
			statements(statement("Deny", "s3:GetObject", "*", ""), statement("Allow", "s3:*", "*", "")): true,
			`{"Version":"2012-10-17","Id":"x","Statement":{"Sid":"y","Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],
				"Resource":["arn:aws:s3:::other/*","arn:aws:s3:::events/*"]}}`: true,

			allowIf(tls): false,
			allowIf(`{"Bool":{"aws:securetransport":false}}`):                                                             true,
			allowIf(`{"Bool":{"aws:SecureTransport":["true","false"]}}`):                                                  true,
			allowIf(`{"BoolIfExists":{"aws:SecureTransport":"true"}}`):                                                    false,
			allowIf(`{"BoolIfExists":{"kms:ViaService":"true"}}`):                                                         true,
			allowIf(`{"Null":{"s3:x-amz-acl":"true"}}`):                                                                   true,
			allowIf(`{"Null":{"s3:x-amz-acl":"false"}}`):                                                                  false,
			allowIf(`{"Null":{"s3:x-amz-storage-class":"false"}}`):                                                        true,
			allowIf(`{"StringEquals":{"s3:x-amz-storage-class":"STANDARD_IA"}}`):                                          true,
			allowIf(`{"StringEquals":{"s3:x-amz-storage-class":["GLACIER","STANDARD_IA"]}}`):                              true,
			allowIf(`{"StringEquals":{"s3:x-amz-storage-class":"STANDARD_*"}}`):                                           false,
			allowIf(`{"StringEquals":{"s3:x-amz-storage-class":"standard_ia"}}`):                                          false,
			allowIf(`{"StringEqualsIgnoreCase":{"s3:x-amz-storage-class":"standard_ia"}}`):                                true,
			allowIf(`{"StringNotEqualsIgnoreCase":{"s3:x-amz-storage-class":"standard_ia"}}`):                             false,
			allowIf(`{"StringLike":{"s3:x-amz-storage-class":"STANDARD_*"}}`):                                             true,
			allowIf(`{"StringNotLike":{"s3:x-amz-storage-class":"STANDARD_*"}}`):                                          false,
			allowIf(`{"StringNotEquals":{"s3:x-amz-storage-class":["GLACIER","STANDARD_IA"]}}`):                           false,
			allowIf(`{"StringNotEquals":{"s3:x-amz-storage-class":"GLACIER"}}`):                                           true,
			allowIf(`{"StringEquals":{"s3:x-amz-acl":"private"}}`):                                                        false,
			allowIf(`{"StringEqualsIfExists":{"s3:x-amz-acl":"private"}}`):                                                true,
			allowIf(`{"StringNotEquals":{"s3:x-amz-acl":"private"}}`):                                                     true,
			allowIf(`{"StringEquals":{"s3:if-none-match":"*"}}`):                                                          true,
			allowIf(`{"StringEquals":{"s3:x-amz-server-side-encryption":"AES256"},"Bool":{"aws:SecureTransport":false}}`): true,
			allowIf(`{"StringEquals":{"s3:x-amz-server-side-encryption":"AES256","s3:x-amz-acl":"private"}}`):             false,
		} {
			srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret, Policy: policy})
			q := put
			q.header = map[string]string{"X-Amz-Storage-Class": "STANDARD_IA", "X-Amz-Server-Side-Encryption": "AES256", "If-None-Match": "*"}
			got := q.send(t, srv)
			if denied := got.status == 403; denied == allowed || !denied && got.status != 200 && got.status != 412 {
				t.Errorf("%s: got %v, want allowed: %t", policy, got, allowed)
			}
		}
	})
}

// TestPolicyRefusals sets policies that cannot be evaluated.
func TestPolicyRefusals(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		`{`:                            "invalid Json",
		`[]`:                           "Syntax errors",
		`{"Version":"2012-10-17"}`:     "Syntax errors",
		`{"Statement":[]}`:             "version",
		statements(`{"Effect":"May"}`): "Syntax errors",
		statements(`{"Effect":"Allow","Resource":"*"}`):                    "must contain actions",
		statements(`{"Effect":"Allow","Action":"s3:*"}`):                   "must contain resources",
		statements(`{"Effect":"Allow","NotAction":"s3:*","Resource":"*"}`): "does not support NotAction",
		statements(`{"Effect":"Allow","Action":"s3:*","NotResource":"*"}`): "does not support NotAction, NotResource",
		statements(statement("Allow", "s3:*", "*", `,"Principal":"*"`)):    "should not specify a principal",
		statements(statement("Allow", "s3:*", "*", `,"Mood":"good"`)):      "Syntax errors",
		allow("PutObject", "*"):                                                   "prefaced by a vendor",
		allow("s3:*", "events/*"):                                                 "must be in ARN format",
		allow("s3:*", "arn:aws:s3:::events/${aws:username}"):                      "does not support the variable",
		allowIf(`{"DateGreaterThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}`): "aws:CurrentTime",
		allowIf(`{"DateGreaterThan":{"aws:SecureTransport":"true"}}`):             `does not support the condition operator "DateGreaterThan"`,
		allowIf(`{"ForAnyValue:StringLike":{"s3:x-amz-acl":"*"}}`):                "ForAnyValue",
		allowIf(`{"NullIfExists":{"s3:x-amz-acl":"true"}}`):                       "NullIfExists",
		allowIf(`{"StringLike":{"aws:PrincipalOrgID":"o-1"}}`):                    `does not support the condition key "aws:PrincipalOrgID"`,
		allowIf(`{"Bool":{"aws:SecureTransport":"perhaps"}}`):                     "Syntax errors",
		allowIf(`{"StringLike":{"s3:x-amz-acl":[]}}`):                             "Syntax errors",
		allowIf(`{"StringLike":{"s3:x-amz-acl":"${s3:x-amz-storage-class}"}}`):    "does not support the variable",
	} {
		srv := s3sinktest.NewServer(s3sinktest.InMemory())
		for what, set := range map[string]func(){
			"user": func() { srv.AddUser(s3sinktest.User{AccessKeyID: keyID, Policy: policy}) },
			"role": func() { srv.AddRole(s3sinktest.Role{ARN: hop, Policy: policy}) },
		} {
			if got := panicOf(set); !strings.Contains(got, want) {
				t.Errorf("%s with %s: got %q, want %q", what, policy, got, want)
			}
		}
		srv.Close()
	}
}

func panicOf(f func()) (text string) {
	defer func() { text, _ = recover().(string) }()
	f()
	return ""
}

// TestSessionPolicies takes away from what the role may do, and gives nothing.
func TestSessionPolicies(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const session = "arn:aws:sts::111122223333:assumed-role/hop/test"
		said := func(action, resource, reason string) string {
			return "User: " + session + " is not authorized to perform: " + action + " on resource: " + resource + " " + reason
		}
		const object = `"arn:aws:s3:::events/dir/a"`
		for _, test := range []struct{ name, role, session, want string }{
			{"both", allow("s3:*", "*"), allow("s3:PutObject", "arn:aws:s3:::events/dir/*"), ""},
			{"role alone", allow("s3:*", "*"), allow("s3:PutObject", "arn:aws:s3:::events/other/*"),
				said("s3:PutObject", object, "because no session policy allows the s3:PutObject action")},
			{"session alone", allow("s3:GetObject", "*"), allow("s3:*", "*"),
				said("s3:PutObject", object, "because no identity-based policy allows the s3:PutObject action")},
			{"role denies", statements(statement("Allow", "*", "*", ""), statement("Deny", "s3:Put*", "*", "")), allow("s3:*", "*"),
				said("s3:PutObject", object, "with an explicit deny in an identity-based policy")},
			{"session denies", allow("s3:*", "*"), statements(statement("Allow", "*", "*", ""), statement("Deny", "s3:Put*", "*", "")),
				said("s3:PutObject", object, "with an explicit deny in a session policy")},
		} {
			srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Policy: test.role})
			got := request{method: "PUT", path: "/events/dir/a", keys: assumeHopWith(t, srv, test.session)}.send(t, srv)
			checkDenial(t, test.name, got, test.want)
		}
	})
}

// checkDenial wants success, or a denial in these words.
func checkDenial(t *testing.T, name string, got reply, want string) {
	t.Helper()
	if want == "" && got.status == 200 {
		return
	}
	if want == "" || got.String() != "403 AccessDenied" || got.message != want {
		t.Errorf("%s: got %v %q, want %q", name, got, got.message, want)
	}
}

func TestActionsAddToThePolicy(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddRole(s3sinktest.Role{
			ARN: hop, TrustedPrincipals: []string{user},
			Policy: allow("s3:PutObject", "*"), Actions: []string{"s3:GetObject"},
		})
		session := assumeHop(t, srv)
		for what, want := range map[string]int{"PUT /events/a": 200, "GET /events/a": 200, "GET /events?list-type=2": 403} {
			method, path, _ := strings.Cut(what, " ")
			if method == "GET" {
				request{method: "PUT", path: "/events/a"}.send(t, srv)
			}
			if got := (request{method: method, path: path, keys: session}).send(t, srv); got.status != want {
				t.Errorf("%s: got %v, want %d", what, got, want)
			}
		}
	})
}

// TestHops assumes a role as a session of another.
func TestHops(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const same = "arn:aws:iam::111122223333:role/same" // in the account of hop
		const session = "arn:aws:sts::111122223333:assumed-role/hop/test"
		assume, put := allow("sts:AssumeRole", "*"), allow("s3:PutObject", "*")
		refused := func(role, reason string) string {
			return strings.TrimSpace("User: " + session + " is not authorized to perform: sts:AssumeRole on resource: " + role + " " + reason)
		}
		const noIdentity = "because no identity-based policy allows the sts:AssumeRole action"
		const noSession = "because no session policy allows the sts:AssumeRole action"
		for _, test := range []struct{ name, trusted, role, policy, session, want string }{
			{"both", hop, sink, assume, assume, ""},
			{"no policies", hop, sink, "", "", ""},
			{"role that may not", hop, sink, put, "", refused(sink, noIdentity)},
			{"session that may not", hop, sink, "", put, refused(sink, noSession)},
			{"session for another role", hop, sink, "", allow("sts:AssumeRole", same), refused(sink, noSession)},
			{"session for this role", hop, sink, "", allow("sts:AssumeRole", sink), ""},
			{"external id as a condition", hop, sink, "", statements(statement("Allow", "sts:AssumeRole", "*",
				`,"Condition":{"StringEquals":{"sts:ExternalId":"workspace/1"}}`)), ""},
			{"other external id", hop, sink, "", statements(statement("Allow", "sts:AssumeRole", "*",
				`,"Condition":{"StringEquals":{"sts:ExternalId":"workspace/2"}}`)), refused(sink, noSession)},
			{"trusted by name in its account", hop, same, put, "", ""},
			{"trusted by name, session that may not", hop, same, put, put, refused(same, noSession)},
			{"trusted with its account", "111122223333", same, assume, "", ""},
			{"trusted with its account, by ARN", "arn:aws:iam::111122223333:root", same, assume, "", ""},
			{"trusted with its account, may not", "111122223333", same, put, "", refused(same, noIdentity)},
			{"not trusted", "444455556666", same, assume, "", refused(same, "")},
		} {
			srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Policy: test.policy})
			for _, arn := range []string{same, sink} {
				srv.AddRole(s3sinktest.Role{ARN: arn, TrustedPrincipals: []string{test.trusted}, ExternalID: "workspace/1"})
			}
			q := stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": test.role, "RoleSessionName": "test", "ExternalId": "workspace/1"})
			q.keys = assumeHop(t, srv)
			if test.session != "" {
				q.keys = assumeHopWith(t, srv, test.session)
			}
			checkDenial(t, test.name, q.send(t, srv), test.want)
		}
	})
}

// TestPackedPolicyTooLarge is an answer that only STS can find a reason for.
func TestPackedPolicyTooLarge(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 400, Code: "PackedPolicyTooLarge",
			Match: func(r *http.Request) bool { return r.PostFormValue("Policy") != "" }})
		q := stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": hop, "RoleSessionName": "test", "Policy": allow("s3:*", "*")})
		if got := q.send(t, srv); got.String() != "400 PackedPolicyTooLarge" {
			t.Errorf("got %v", got)
		}
	})
}

// FuzzPolicy looks for policies that make a session, and then a put, fail in
// other ways than an answer.
func FuzzPolicy(f *testing.F) {
	f.Add(allow("s3:*", "arn:aws:s3:::events/${*}?*"))
	f.Add(allowIf(`{"StringLike":{"s3:x-amz-acl":["a*","${$}"]}}`))
	f.Fuzz(func(t *testing.T, policy string) {
		srv := s3sinktest.NewServer(s3sinktest.InMemory())
		defer srv.Close()
		furnish(srv)
		q := stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": hop, "RoleSessionName": "test", "Policy": policy})
		got := q.send(t, srv)
		if got.status == 200 {
			got = request{method: "PUT", path: "/events/a", keys: keysOf(t, got)}.send(t, srv)
		} else if json.Valid([]byte(policy)) && strings.Contains(got.message, "invalid Json") {
			t.Errorf("got %v %s", got, got.message)
		}
		if got.status >= 500 && got.status != 501 {
			t.Errorf("got %v", got)
		}
	})
}
