package policy_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/policy"
)

const owner = "123456789012"

// script is the setup script with the accounts that it runs against.
type script struct {
	*fakeAWS
	policies      policy.Set
	sh, dir, text string
	args          []string // arguments of the shell
}

func newScript(t *testing.T, policies policy.Set) *script {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("SKIP: no shell runs the script: ", err)
	}
	if _, err := exec.LookPath("awk"); err != nil {
		t.Skip("SKIP: the script needs awk: ", err)
	}
	s := &script{
		fakeAWS:  &fakeAWS{Account: owner, Partition: "aws", Roles: map[string]string{}, Policies: map[string]string{}, Fail: map[string]string{}},
		policies: policies, sh: sh, dir: t.TempDir(), text: policies.CLI(),
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(s.dir, "aws")); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs the script and returns its exit code and output. Writes then holds the
// write operations of the run.
func (s *script) run(t *testing.T, env ...string) (code int, output string) {
	t.Helper()
	state := filepath.Join(s.dir, "state.json")
	s.Writes = nil
	if err := writeJSON(state, s.fakeAWS); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.sh, s.args...)
	cmd.Stdin = strings.NewReader(s.text)
	cmd.Env = append(os.Environ(), "PATH="+s.dir+string(os.PathListSeparator)+os.Getenv("PATH"), fakeAWSState+"="+state)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	*s.fakeAWS = fakeAWS{}
	if err := readJSON(state, s.fakeAWS); err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// statements returns the statements of a policy in a form that can be compared:
// without Sid, with every list of one value as the value.
func statements(t *testing.T, policy string) (all []string) {
	t.Helper()
	var document struct{ Statement []map[string]any }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		t.Fatalf("%v in %s", err, policy)
	}
	for _, s := range document.Statement {
		delete(s, "Sid")
		all = append(all, compact(sortLists(scalars(s))))
	}
	return all
}

func sortLists(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = sortLists(v[name])
		}
	case []any:
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	return v
}

// Given empty accounts, then the script creates every policy, each in its own
// account. A second run writes nothing.
func TestSetupScript_NothingExists(t *testing.T) {
	t.Parallel()
	for name, tt := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policies := mustPolicies(t, tt)
			s := newScript(t, policies)
			all := map[string]bool{}
			accounts := []string{owner}
			if several(policies) {
				accounts = append(accounts, "210987654321")
			}
			for _, account := range accounts {
				s.Account, s.Policies = account, map[string]string{}
				s.Roles = map[string]string{}
				for _, d := range policies {
					arn := strings.Split(d.Of, ":")
					if d.Kind == policy.Permissions && len(arn) > 5 && arn[4] == account && strings.HasPrefix(arn[5], "role/") && !trusts(policies, d.Of) {
						s.Roles[d.Of[strings.LastIndexByte(d.Of, '/')+1:]] = d.Of // the script does not create this role
					}
					if d.Kind == policy.TrustPolicy {
						s.Partition = arn[1]
					}
					if d.Kind == policy.KeyPolicy { // a key always has a policy
						s.Policies["key "+d.Of] = `{"Version":"2012-10-17","Statement":[]}`
					}
				}
				code, out := s.run(t, "APPLY_MERGED=1")
				if code != 0 {
					t.Fatalf("account %s: exit %d\n%s", account, code, out)
				}
				for _, d := range policies {
					written := false
					for _, policy := range s.Policies {
						written = written || slices.Equal(statements(t, policy), statements(t, d.Document.String()))
					}
					known := strings.HasPrefix(d.Of, "arn:")
					if written && known && d.Kind != policy.BucketPolicy && !strings.Contains(d.Of, ":"+account+":") && several(policies) {
						t.Errorf("the %s of %s is applied in account %s", d.Kind, d.Of, account)
					}
					all[d.Of+string(d.Kind)] = all[d.Of+string(d.Kind)] || written == known
				}
				if code, out := s.run(t); code != 0 || len(s.Writes) > 0 {
					t.Errorf("again in account %s: exit %d, wrote %q\n%s", account, code, s.Writes, out)
				}
			}
			for _, d := range policies {
				if !all[d.Of+string(d.Kind)] {
					t.Errorf("the %s of %s: want it applied if its owner is known, and not otherwise", d.Kind, d.Of)
				}
			}
		})
	}
}

// trusts reports whether policies have a trust policy of the role.
func trusts(policies policy.Set, role string) bool {
	return slices.ContainsFunc(policies, func(d policy.Policy) bool { return d.Kind == policy.TrustPolicy && d.Of == role })
}

// several reports whether policies are for more than one account.
func several(policies policy.Set) bool { return strings.Contains(policies.CLI(), "account=$(") }

const (
	trustSegment = `{"Version": "2012-10-17", "Statement": {"Sid": "Segment", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::595280932656:role/customer-s3-prod-action-destination-access"}, "Action": "sts:AssumeRole", "Condition": {"StringEquals": {"sts:ExternalId": "workspace-1"}}}}`
	denyPlain    = `{"Version":"2012-10-17","Id":"tls","Statement":[{"Sid":"WriteObjects","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::acme-events","arn:aws:s3:::acme-events/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`
	readOthers   = `{"Version":"2012-10-17","Statement":[{"Sid":"WriteObjects","Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::other/*"}]}`
	keyAdmins    = `{"Version":"2012-10-17","Statement":[{"Sid":"admins \"} ]","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/Admin"},"Action":"kms:*","Resource":"*"}]}`
	keyToIAM     = `{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"kms:*","Resource":"*"}]}`
)

// Given an existing policy of others, then the script prints it with our statements
// added, writes nothing in any account and exits with 3. With APPLY_MERGED=1 it
// writes the policy with both statements, and the next run changes nothing.
func TestSetupScript_PolicyOfOthersExists(t *testing.T) {
	t.Parallel()
	role := mustPolicies(t, setups["segment-role"])
	bucket := mustPolicies(t, setups["rudderstack-options-2-and-3"])
	for name, tt := range map[string]struct {
		policies policy.Set
		of       string // key in the state
		kind     policy.Kind
		existing string
	}{
		"trust policy":  {role, "trust S3Sink", policy.TrustPolicy, trustSegment},
		"inline policy": {role, "role S3Sink s3sink-write", policy.Permissions, readOthers},
		"key policy":    {role, "key " + kmsKey, policy.KeyPolicy, keyAdmins},
		"key of another account that leaves it to its IAM": {bucket, "key " + kmsKey, policy.KeyPolicy, keyToIAM},
		"bucket policy": {bucket, "bucket acme-events", policy.BucketPolicy, denyPlain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, tt.policies)
			s.Policies["key "+kmsKey] = keyToIAM
			if tt.kind == policy.BucketPolicy { // so that only the policy of the case lacks a statement
				s.Policies["key "+kmsKey] = withOurs(t, tt.policies)
			}
			if strings.Contains(tt.of, "S3Sink") {
				s.Roles["S3Sink"] = "arn:aws:iam::123456789012:role/S3Sink"
				s.Policies["trust S3Sink"] = trustSegment
				if tt.kind != policy.TrustPolicy {
					s.Policies["trust S3Sink"] = tt.policies[1].Document.String()
				}
			}
			s.Policies[tt.of] = tt.existing
			before := maps.Clone(s.Policies)
			var ours []string
			for _, d := range tt.policies {
				if d.Kind == tt.kind { // the last: the first permissions are the caller's
					ours = statements(t, d.Document.String())
				}
			}
			want := append(statements(t, listed(tt.existing)), ours...)

			code, out := s.run(t)
			if code != 3 || len(s.Writes) > 0 || !reflect.DeepEqual(s.Policies, before) {
				t.Fatalf("exit %d, wrote %q, want 3 and nothing\n%s", code, s.Writes, out)
			}
			if !strings.Contains(out, "Nothing was changed") || !strings.Contains(out, "APPLY_MERGED=1") {
				t.Errorf("the output does not say what to do:\n%s", out)
			}
			printed := regexp.MustCompile(`(?ms)^{$.*?^}$`).FindAllString(out, -1)
			if len(printed) != 1 || !slices.Equal(statements(t, printed[0]), want) {
				t.Errorf("printed %s\nwant the statements %s", out, want)
			}

			code, out = s.run(t, "APPLY_MERGED=1")
			if code != 0 || !slices.Equal(statements(t, s.Policies[tt.of]), want) {
				t.Errorf("with APPLY_MERGED=1: exit %d and\n%s\nwant the statements %s\n%s", code, s.Policies[tt.of], want, out)
			}
			if code, out := s.run(t); code != 0 || len(s.Writes) > 0 {
				t.Errorf("again: exit %d, wrote %q\n%s", code, s.Writes, out)
			}
		})
	}
}

// withOurs returns a key policy that has our statement.
func withOurs(t *testing.T, policies policy.Set) string {
	t.Helper()
	for _, d := range policies {
		if d.Kind == policy.KeyPolicy {
			return d.Document.String()
		}
	}
	t.Fatal("no key policy")
	return ""
}

// listed returns a policy with its only statement in a list.
func listed(policy string) string {
	var document map[string]any
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		panic(err)
	}
	if _, one := document["Statement"].(map[string]any); one {
		document["Statement"] = []any{document["Statement"]}
	}
	return compact(document)
}

// Given an error of AWS, then the script prints the error, stops, and writes nothing
// after it.
func TestSetupScript_AWSRefuses(t *testing.T) {
	t.Parallel()
	for operation, writes := range map[string][]string{
		"get-caller-identity": nil,
		"get-role":            nil,
		"get-role-policy":     nil,
		"get-bucket-policy":   nil,
		"get-key-policy":      nil,
		"create-role":         nil,
		"put-role-policy":     {"create-role trust S3Sink"},
		"put-bucket-policy":   {"create-role trust S3Sink", "put-role-policy role S3Sink s3sink-write"},
	} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			tt := setups["segment-role"]
			tt.in.CrossAccount = true // so there are policies of every kind
			tt.in.Caller = "arn:aws:iam::210987654321:user/service"
			tt.in.BucketKMSKey = strings.Replace(kmsKey, owner, "999999999999", 1)
			policies := mustPolicies(t, tt)
			s := newScript(t, policies)
			// One run reads and writes policies of every kind, so all belong to one account.
			s.text = strings.NewReplacer("!= "+owner, "= "+owner, "= 999999999999", "= "+owner).Replace(s.text)
			s.Policies["key "+tt.in.BucketKMSKey] = policies[len(policies)-1].Document.String()
			s.Fail[operation] = "AccessDenied"
			code, out := s.run(t)
			if code == 0 || code == 3 || !slices.Equal(s.Writes, writes) {
				t.Errorf("exit %d, wrote %q, want an error and %q\n%s", code, s.Writes, writes, out)
			}
			if !strings.Contains(out, "(AccessDenied) when calling the "+operation) {
				t.Errorf("the output lacks the error of AWS:\n%s", out)
			}
		})
	}
}

// Given a role of the same name with another path, then it is not the role of the
// Config.
func TestSetupScript_RoleHasAnotherPath(t *testing.T) {
	t.Parallel()
	s := newScript(t, mustPolicies(t, setups["segment-role"]))
	s.Roles["S3Sink"] = "arn:aws:iam::123456789012:role/vendors/S3Sink"
	s.Policies["trust S3Sink"], s.Policies["key "+kmsKey] = trustSegment, keyToIAM
	code, out := s.run(t, "APPLY_MERGED=1")
	if code != 1 || len(s.Writes) > 0 || !strings.Contains(out, "role/vendors/S3Sink") {
		t.Errorf("exit %d, wrote %q\n%s", code, s.Writes, out)
	}
}

// Given an existing policy of Version 2008-10-17 and a statement of ours with
// variables, then the script does not merge them. In that Version variables are
// plain text, so our statement would allow nothing. With a newer Version the
// existing statements could change their meaning.
func TestSetupScript_OldVersionWithoutVariables(t *testing.T) {
	t.Parallel()
	others := setups["bucket-of-others"]
	others.sink.Folder = "it's a$b/segment-logs/"
	s := newScript(t, mustPolicies(t, others))
	s.Policies["bucket acme-events"] = strings.Replace(denyPlain, "2012-10-17", "2008-10-17", 1)
	code, out := s.run(t, "APPLY_MERGED=1")
	if code != 1 || len(s.Writes) > 0 || !strings.Contains(out, "Version") {
		t.Errorf("exit %d, wrote %q\n%s", code, s.Writes, out)
	}
}

// Given an existing policy that merge.awk cannot parse, then the script stops.
func TestSetupScript_PolicyIsNotJSON(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"None", "{", `{"Statement":[{"Effect":"Allow"}`, `{"Statement":["x]}`, `{"Version":"2012-10-17"}`} {
		s := newScript(t, mustPolicies(t, setups["bucket-of-others"]))
		s.Policies["bucket acme-events"] = policy
		s.Account = owner
		code, out := s.run(t, "APPLY_MERGED=1")
		if code != 1 || len(s.Writes) > 0 || !strings.Contains(out, "s3sink setup: a policy") {
			t.Errorf("%s: exit %d, wrote %q\n%s", policy, code, s.Writes, out)
		}
	}
}

// Given every installed shell and awk, then the script gives the same result.
func TestSetupScript_ShellsAndAwks(t *testing.T) {
	t.Parallel()
	for _, tools := range [][2]string{ // a shell and an awk
		{"dash", "mawk"}, {"bash --posix", "gawk"}, {"busybox sh", "busybox awk"}, {"ksh", "original-awk"},
	} {
		for i, tool := range tools {
			if _, err := exec.LookPath(strings.Fields(tool)[0]); err != nil {
				t.Logf("SKIP: %v: the script is not run with it", err)
				tools[i] = []string{"sh", "awk"}[i]
			}
		}
		if tools == [2]string{"sh", "awk"} {
			continue
		}
		s := newScript(t, mustPolicies(t, setups["bucket-of-others"]))
		awk := "#!/bin/sh\nexec " + tools[1] + ` "$@"` + "\n"
		if tools[1] == "awk" {
			awk = ""
		}
		shell := strings.Fields(tools[0])
		s.sh, s.args = shell[0], shell[1:]
		if awk != "" {
			if err := os.WriteFile(filepath.Join(s.dir, "awk"), []byte(awk), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		s.Policies["bucket acme-events"] = strings.Replace(denyPlain, "arn:aws:s3:::acme-events/*", `arn:aws:s3:::acme-events\/\u00e9\u0026*`, 1)
		want := append(statements(t, s.Policies["bucket acme-events"]), statements(t, s.policies[1].Document.String())...)
		if code, out := s.run(t, "APPLY_MERGED=1"); code != 0 || !slices.Equal(statements(t, s.Policies["bucket acme-events"]), want) {
			t.Errorf("%q: exit %d and %s, want %s\n%s", tools, code, s.Policies["bucket acme-events"], want, out)
		}
		// Escapes and spaces do not count as differences.
		s.Policies["bucket acme-events"] = strings.NewReplacer("/", `\/`, "exporter", `e\u0078porter`, ",", "\n,\t").Replace(s.Policies["bucket acme-events"])
		if code, out := s.run(t); code != 0 || len(s.Writes) > 0 {
			t.Errorf("%q, again: exit %d, wrote %q\n%s", tools, code, s.Writes, out)
		}
	}
}
