package s3sinktest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestAssumeRoleAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const open = "arn:aws:iam::111122223333:role/open"
		srv.AddRole(s3sinktest.Role{ARN: open, TrustedPrincipals: []string{"*"}, MaxSession: 2 * time.Hour})
		const locked = "arn:aws:iam::111122223333:role/locked"
		srv.AddRole(s3sinktest.Role{ARN: locked, TrustedPrincipals: []string{user}, ExternalID: "workspace/1"})
		const closed = "arn:aws:iam::111122223333:role/closed"
		srv.AddRole(s3sinktest.Role{ARN: closed})
		session := assumeHop(t, srv)

		for _, test := range []struct {
			name, want string
			params     map[string]string
			keys       aws.Credentials
		}{
			{"no external id asked for, none sent", "200", map[string]string{"RoleArn": open}, aws.Credentials{}},
			{"no external id asked for, one sent", "200", map[string]string{"RoleArn": open, "ExternalId": "x/1"}, aws.Credentials{}},
			{"right external id", "200", map[string]string{"RoleArn": locked, "ExternalId": "workspace/1"}, aws.Credentials{}},
			{"wrong external id", "403 AccessDenied", map[string]string{"RoleArn": locked, "ExternalId": "workspace/2"}, aws.Credentials{}},
			{"missing external id", "403 AccessDenied", map[string]string{"RoleArn": locked}, aws.Credentials{}},
			{"short external id", "400 ValidationError", map[string]string{"RoleArn": locked, "ExternalId": "x"}, aws.Credentials{}},
			{"empty external id", "400 ValidationError", map[string]string{"RoleArn": locked, "ExternalId": ""}, aws.Credentials{}},
			{"long external id", "400 ValidationError", map[string]string{"RoleArn": locked, "ExternalId": strings.Repeat("x", 1225)}, aws.Credentials{}},
			{"odd external id", "400 ValidationError", map[string]string{"RoleArn": locked, "ExternalId": "a b"}, aws.Credentials{}},
			{"untrusting role", "403 AccessDenied", map[string]string{"RoleArn": closed}, aws.Credentials{}},
			{"untrusted principal", "403 AccessDenied", map[string]string{"RoleArn": locked, "ExternalId": "workspace/1"}, session},
			{"unknown role", "403 AccessDenied", map[string]string{"RoleArn": "arn:aws:iam::111122223333:role/none"}, aws.Credentials{}},
			{"not an ARN", "400 ValidationError", map[string]string{"RoleArn": "open"}, aws.Credentials{}},
			{"a user's ARN", "400 ValidationError", map[string]string{"RoleArn": user}, aws.Credentials{}},
			{"no role", "400 ValidationError", nil, aws.Credentials{}},
			{"no session name", "400 ValidationError", map[string]string{"RoleArn": open, "RoleSessionName": ""}, aws.Credentials{}},
			{"odd session name", "400 ValidationError", map[string]string{"RoleArn": open, "RoleSessionName": "a b"}, aws.Credentials{}},
			{"long session name", "400 ValidationError", map[string]string{"RoleArn": open, "RoleSessionName": strings.Repeat("x", 65)}, aws.Credentials{}},
			{"shortest session", "200", map[string]string{"RoleArn": open, "DurationSeconds": "900"}, aws.Credentials{}},
			{"shorter session", "400 ValidationError", map[string]string{"RoleArn": open, "DurationSeconds": "899"}, aws.Credentials{}},
			{"no number", "400 ValidationError", map[string]string{"RoleArn": open, "DurationSeconds": "1h"}, aws.Credentials{}},
			{"longest session", "200", map[string]string{"RoleArn": open, "DurationSeconds": "7200"}, aws.Credentials{}},
			{"longer than the role's", "400 ValidationError", map[string]string{"RoleArn": open, "DurationSeconds": "7201"}, aws.Credentials{}},
			{"longer than any", "400 ValidationError", map[string]string{"RoleArn": open, "DurationSeconds": "43201"}, aws.Credentials{}},
			{"chained", "200", map[string]string{"RoleArn": open, "DurationSeconds": "3600"}, session},
			{"chained for too long", "400 ValidationError", map[string]string{"RoleArn": open, "DurationSeconds": "3601"}, session},
			{"policy", "200", map[string]string{"RoleArn": open, "Policy": allow("s3:*", "*")}, aws.Credentials{}},
			{"longest policy", "200", map[string]string{"RoleArn": open, "Policy": allow("s3:*", "*") + strings.Repeat(" ", 2048-len(allow("s3:*", "*")))}, aws.Credentials{}},
			{"longest policy, not in ASCII", "200", map[string]string{"RoleArn": open,
				"Policy": allow("s3:*", "arn:aws:s3:::"+strings.Repeat("ü", 2048-len(allow("s3:*", "arn:aws:s3:::"))))}, aws.Credentials{}},
			{"policy of a resource", "400 MalformedPolicyDocument", map[string]string{"RoleArn": open, "Policy": bucketAllow(user, "s3:PutObject", "arn:aws:s3:::events/*")}, aws.Credentials{}},
			{"policy that AWS may understand", "501 NotImplemented", map[string]string{"RoleArn": open, "Policy": allow("s3:*", "arn:aws:s3:::${aws:username}")}, aws.Credentials{}},
			{"not a policy", "400 MalformedPolicyDocument", map[string]string{"RoleArn": open, "Policy": `{"Version"`}, aws.Credentials{}},
			{"another JSON value", "400 MalformedPolicyDocument", map[string]string{"RoleArn": open, "Policy": `null`}, aws.Credentials{}},
			{"long policy", "400 ValidationError", map[string]string{"RoleArn": open, "Policy": "{" + strings.Repeat(" ", 2047) + "}"}, aws.Credentials{}},
			{"no such action", "400 InvalidAction", map[string]string{"Action": "GetSessionToken"}, aws.Credentials{}},
			{"no version", "400 InvalidAction", map[string]string{"RoleArn": open, "Version": ""}, aws.Credentials{}},
		} {
			params := map[string]string{"Action": "AssumeRole", "RoleSessionName": "test"}
			for name, value := range test.params {
				params[name] = value
			}
			q := stsRequest(params)
			q.keys = test.keys
			if got := q.send(t, srv); got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
		}
	})
}

// TestDenialsLookTheSame makes sure that a refusal does not tell whether a role
// exists.
func TestDenialsLookTheSame(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, params := range []map[string]string{
			{"RoleArn": sink}, {"RoleArn": sink, "ExternalId": "wrong"}, {"RoleArn": sink + "2"},
		} {
			params["Action"], params["RoleSessionName"] = "AssumeRole", "test"
			got := stsRequest(params).send(t, srv)
			want := fmt.Sprintf("<Message>User: %s is not authorized to perform: sts:AssumeRole on resource: %s</Message>", user, params["RoleArn"])
			if got.String() != "403 AccessDenied" || !strings.Contains(string(got.body), want) {
				t.Errorf("%v: got %v %s", params, got, got.body)
			}
		}
	})
}

// TestChain goes through two roles, as the SDK does it, and puts an object.
func TestChain(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		first := aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(stsClient(srv, userKeys), hop))
		second := aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(stsClient(srv, first), sink,
			func(o *stscreds.AssumeRoleOptions) {
				o.ExternalID = aws.String("workspace/1")
				o.RoleSessionName = "sink-1"
				o.Policy = aws.String(allow("s3:PutObject", "arn:aws:s3:::events/*"))
				o.Duration = 30 * time.Minute
			}))
		before := time.Now()
		if _, err := s3Client(srv, second).PutObject(t.Context(), put("key", "body")); err != nil {
			t.Fatal(err)
		}
		keys, err := second.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if life := keys.Expires.Sub(before); !strings.HasPrefix(keys.AccessKeyID, "ASIA") || life < 29*time.Minute || life > 31*time.Minute {
			t.Errorf("keys %s live for %v", keys.AccessKeyID, life)
		}

		requests := srv.Requests()
		if len(requests) != 3 {
			t.Fatalf("%d requests: %+v", len(requests), requests)
		}
		for i, want := range []struct{ operation, principalPrefix string }{
			{"AssumeRole", user},
			{"AssumeRole", "arn:aws:sts::111122223333:assumed-role/hop/"},
			{"PutObject", "arn:aws:sts::444455556666:assumed-role/sink/sink-1"},
		} {
			if got := requests[i]; got.Operation != want.operation || !strings.HasPrefix(got.Principal, want.principalPrefix) {
				t.Errorf("request %d is %s by %s, want %v", i, got.Operation, got.Principal, want)
			}
		}
		if form := requests[1].Form; form.Get("ExternalId") != "workspace/1" || form.Get("Policy") == "" {
			t.Errorf("form is %v", form)
		}
	})
}

func TestCallerIdentity(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		session := assumeHop(t, srv)
		keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return session, nil })
		for want, keys := range map[string]aws.CredentialsProvider{
			user: userKeys,
			"arn:aws:sts::111122223333:assumed-role/hop/test": keys,
		} {
			got, err := stsClient(srv, keys).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if err != nil {
				t.Fatal(err)
			}
			if *got.Arn != want || *got.Account != "111122223333" || *got.UserId == "" {
				t.Errorf("got %s %s %s, want %s", *got.Arn, *got.Account, *got.UserId, want)
			}
		}
	})
}

// TestSessionLasts gets sessions of two seconds, which STS itself does not sell.
func TestSessionLasts(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, SessionLasts: 2 * time.Second})
		out, err := stsClient(srv, userKeys).AssumeRole(t.Context(), &sts.AssumeRoleInput{
			RoleArn: aws.String(hop), RoleSessionName: aws.String("test"), DurationSeconds: aws.Int32(3600),
		})
		if err != nil || time.Until(*out.Credentials.Expiration) != 2*time.Second {
			t.Fatalf("got %+v, %v", out, err)
		}
		q := request{method: "PUT", path: "/events/a", keys: aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId,
			SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}}
		for _, want := range []string{"200", "200", "400 ExpiredToken"} {
			if got := q.send(t, srv); got.String() != want {
				t.Errorf("got %v, want %s", got, want)
			}
			time.Sleep(time.Second)
		}
	})
}
