package diagnose_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/s3sink/s3sink/internal/diagnose"
	"github.com/s3sink/s3sink/policy"
)

var update = flag.Bool("update", false, "write the table into docs/diagnosis.md")

func (r row) facts() diagnose.Facts {
	f := diagnose.Facts{
		Step:     r.step,
		Answer:   diagnose.Answer{Status: r.status, Code: r.code, Message: r.text, Named: r.code != "", ContentType: "application/xml"},
		Settings: settings(),
	}
	if r.change != nil {
		r.change(&f.Settings)
	}
	if r.more != nil {
		r.more(&f)
	}
	return f
}

// Given the facts of a row, when they are diagnosed, then the advice has the
// expected kind, the expected phrases, and exactly the expected statements.
func TestDiagnose_Rows(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rows {
		if name := string(r.step) + r.name; seen[name] {
			t.Errorf("two rows are called %s", name)
		} else {
			seen[name] = true
		}
		t.Run(string(r.step)+"/"+r.name, func(t *testing.T) {
			t.Parallel()
			a := diagnose.Diagnose(r.facts())
			text := a.String()
			if a.Kind != r.kind {
				t.Errorf("kind %q, want %q: %s", a.Kind, r.kind, text)
			}
			for _, want := range r.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in: %s", want, text)
				}
			}
			for _, bad := range append(r.not, "AWS said", "%!", "  ") {
				if strings.Contains(text, bad) {
					t.Errorf("%q is in: %s", bad, text)
				}
			}
			var got []string
			for _, p := range a.Statements {
				got = append(got, p.Statement.String())
			}
			if strings.Join(got, "\n") != strings.Join(r.statements, "\n") {
				t.Errorf("statements\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(r.statements, "\n"))
			}
			checkText(t, text)
		})
	}
	if len(rows) < 150 {
		t.Errorf("%d rows, want at least 150", len(rows))
	}
}

// checkText checks the rules for every advice: it has a cause and a fix, the fix
// is last, it is one printable line of bounded length, and its lines fit.
func checkText(t *testing.T, text string) {
	t.Helper()
	says, fix, ok := strings.Cut(text, " Fix: ")
	if !ok || says == "" || fix == "" || strings.Contains(fix, "Fix: ") {
		t.Errorf("no cause or not one fix: %q", text)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not printable: %q", text)
	}
	if len(text) > mostAdvice {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

const mostAdvice = 8000

// Given an advice with statements, when it is laid out, then no line of text is
// longer than the terminal, the fix begins a line, and each statement can be
// copied.
func TestLines_Rows(t *testing.T) {
	t.Parallel()
	for _, r := range rows {
		a := diagnose.Diagnose(r.facts())
		laid := diagnose.Lines(a.String(), 100)
		if strings.Count("\n"+laid, "\nFix: ") != 1 {
			t.Errorf("%s: the fix does not begin a line:\n%s", r.name, laid)
		}
		rest := laid
		for _, p := range a.Statements {
			_, after, _ := strings.Cut(rest, ":\n{")
			var s policy.Statement
			d := json.NewDecoder(strings.NewReader("{" + after))
			if err := d.Decode(&s); err != nil || s.String() != p.Statement.String() {
				t.Errorf("%s: %v, the statement is not there:\n%s", r.name, err, laid)
				break
			}
			rest = after[d.InputOffset()-1:]
		}
		for _, line := range strings.Split(laid, "\n") {
			words := strings.Fields(line)
			if utf8.RuneCountInString(line) > 100 && len(words) > 1 && !strings.HasPrefix(line, " ") {
				t.Errorf("%s: %d columns: %s", r.name, len(line), line)
			}
		}
	}
}

// Given AWS's messages, when they are parsed, then each part is found.
func TestParseDenial_Sentences(t *testing.T) {
	t.Parallel()
	const john = "arn:aws:iam::777788889999:user/John"
	for text, want := range map[string]diagnose.Denial{
		"":              {},
		"Access Denied": {},
		"User: " + john + " is not authorized to perform: codecommit:ListRepositories because no service control policy allows the codecommit:ListRespositories action": {
			Principal: john, Action: "codecommit:ListRepositories", Reason: diagnose.ServiceControl},
		"User: " + john + " is not authorized to perform:\ncodecommit:ListRepositories with an explicit deny in a service control policy": {
			Principal: john, Action: "codecommit:ListRepositories", Reason: diagnose.ServiceControl, Explicit: true},
		"User: " + john + " is not authorized to perform: secretsmanager:GetSecretValue on resource: arn:aws:secretsmanager:us-east-1:123456789012:secret:* with an explicit deny in a resource control policy": {
			Principal: john, Action: "secretsmanager:GetSecretValue", Resource: "arn:aws:secretsmanager:us-east-1:123456789012:secret:*", Reason: diagnose.ResourceControl, Explicit: true},
		"User: " + john + " is not authorized to perform: s3:GetObject because no VPC endpoint policy allows the s3:GetObject action": {
			Principal: john, Action: "s3:GetObject", Reason: diagnose.EndpointPolicy},
		"User: " + john + " is not authorized to perform: s3:GetObject because no permissions boundary allows the s3:GetObject action": {
			Principal: john, Action: "s3:GetObject", Reason: diagnose.PermissionsBoundary},
		"User: " + john + " is not authorized to perform: codedeploy:ListDeployments on resource: arn:aws:codedeploy:us-east-1:123456789012:deploymentgroup:* with an explicit deny in a sessions policy": {
			Principal: john, Action: "codedeploy:ListDeployments", Resource: "arn:aws:codedeploy:us-east-1:123456789012:deploymentgroup:*", Reason: diagnose.SessionPolicy, Explicit: true},
		"User: " + john + " is not authorized to perform: sts:AssumeRole because no role trust policy allows the sts:AssumeRole action": {
			Principal: john, Action: "sts:AssumeRole", Reason: diagnose.TrustPolicy},
		"User: " + john + " is not authorized to perform: sts:AssumeRole with an explicit deny in the role trust policy": {
			Principal: john, Action: "sts:AssumeRole", Reason: diagnose.TrustPolicy, Explicit: true},
		`User: ` + john + ` is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::b/a key with blanks" because no identity-based policy allows the s3:PutObject action`: {
			Principal: john, Action: "s3:PutObject", Resource: "arn:aws:s3:::b/a key with blanks", Reason: diagnose.IdentityPolicy},
		"User: " + john + " is not authorized to perform: SNS:Publish on resource: arn:aws:sns:us-east-1:444455556666:topic with an explicit deny in a VPC endpoint policy transitively through a service control policy": {
			Principal: john, Action: "SNS:Publish", Resource: "arn:aws:sns:us-east-1:444455556666:topic", Reason: diagnose.EndpointPolicy, Explicit: true, Via: diagnose.ServiceControl},
		"An error occurred (AccessDenied) when calling the ListRoles operation: User: " + john + " is not authorized to perform: iam:ListRoles on resource: arn:aws:iam::123456789012:role/* with an explicit deny in a service control policy: " + scp: {
			Principal: john, Action: "iam:ListRoles", Resource: "arn:aws:iam::123456789012:role/*", Reason: diagnose.ServiceControl, Explicit: true, PolicyARN: scp},
		"User: " + john + " is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::b/k because no permissions boundary allows the s3:PutObject action with policy ARN: " + boundary + ".": {
			Principal: john, Action: "s3:PutObject", Resource: "arn:aws:s3:::b/k", Reason: diagnose.PermissionsBoundary, PolicyARN: boundary},
		"Not authorized to perform sts:AssumeRoleWithWebIdentity": {Action: "sts:AssumeRoleWithWebIdentity"},
		"User: " + john + " is not authorized to perform: s3:PutObject with an explicit deny": {
			Principal: john, Action: "s3:PutObject", Explicit: true},
		"User: anonymous is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::b/k because no resource-based policy allows the s3:PutObject action": {
			Principal: "anonymous", Action: "s3:PutObject", Resource: "arn:aws:s3:::b/k", Reason: diagnose.ResourcePolicy},
		"User: " + john + ` is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::b/k" because public access control lists (ACLs) are blocked by the BlockPublicAcls block public access setting.`: {
			Principal: john, Action: "s3:PutObject", Resource: "arn:aws:s3:::b/k", Reason: diagnose.PublicAccessBlock, Explicit: true},
	} {
		if got := diagnose.ParseDenial(text); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

// Given answers at the endpoints of S3 and STS, then only answers of AWS are
// introduced by "AWS said".
func TestSpeaker_Endpoints(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		row
		want string
	}{
		{row{step: diagnose.PutObject, status: 403, code: "AccessDenied"}, "AWS"},
		{row{step: diagnose.PutObject, status: 403, code: "AccessDenied", change: atStore}, "The store"},
		{row{step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: atStore}, "AWS"},
		{row{step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: atSTS}, "The STS"},
		{row{step: diagnose.PutObject, status: 404, more: html}, ""},
	} {
		if got := diagnose.Speaker(tt.facts()); got != tt.want {
			t.Errorf("step %s: %q, want %q", tt.step, got, tt.want)
		}
	}
}

// Given any text as AWS's message, then the advice is bounded, printable, has a
// fix, and quotes neither the SDK's text nor a secret.
func FuzzDiagnose(f *testing.F) {
	steps := []diagnose.Step{diagnose.Region, diagnose.Credentials, diagnose.WithoutExternalID, diagnose.AssumeRole, diagnose.PutObject}
	for i, r := range rows {
		facts := r.facts()
		f.Add(uint8(i), uint16(r.status), r.code, r.text, facts.Answer.ErrorText, facts.Answer.Named)
	}
	f.Fuzz(func(t *testing.T, i uint8, status uint16, code, text, errorText string, named bool) {
		const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
		facts := rows[int(i)%len(rows)].facts()
		facts.Step = steps[int(i)%len(steps)]
		facts.Answer.Status, facts.Answer.Code, facts.Answer.Message = int(status), code, text
		facts.Answer.ErrorText, facts.Answer.Named = errorText+secret, named
		facts.Settings.Base = "access key " + secret
		a := diagnose.Diagnose(facts)
		checkText(t, strings.ReplaceAll(a.String(), "Fix: "+a.Fix, "Fix: fix"))
		if laid := diagnose.Lines(a.String(), 100); strings.Contains(laid, secret) && !strings.Contains(text, secret) {
			t.Errorf("a secret in %s", laid)
		}
		for _, p := range a.Statements {
			if !json.Valid([]byte(p.Statement.String())) {
				t.Errorf("not JSON: %s", p.Statement)
			}
		}
	})
}

// Given the table, then docs/diagnosis.md shows it. `go test -run Page -update .` in
// internal/diagnose writes it there.
func TestDiagnosisPage(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- internal/diagnose/diagnose_test.go writes this -->\n", "<!-- until here -->\n"
	file := filepath.Join("..", "..", "docs", "diagnosis.md")
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(written), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	var b strings.Builder
	for _, step := range []diagnose.Step{diagnose.Region, diagnose.Credentials, diagnose.WithoutExternalID, diagnose.AssumeRole, diagnose.PutObject} {
		fmt.Fprintf(&b, "\n## Step: %s\n", step)
		for _, r := range rows {
			if r.step == step {
				r.write(&b)
			}
		}
	}
	want := before + begin + b.String() + "\n" + end + after
	if string(written) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what table_test.go holds: run `go test -run TestDiagnosisPage -update .` in internal/diagnose", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// write writes the section of a row.
func (r row) write(b *strings.Builder) {
	f := r.facts()
	a := diagnose.Diagnose(f)
	answer := strings.TrimSpace(fmt.Sprintf("%d %s", r.status, cmp.Or(r.code, f.Answer.ContentType)))
	switch {
	case f.Assumed:
		answer = "a session"
	case r.status == 0:
		answer = "none"
	}
	fmt.Fprintf(b, "\n### %s\n\n", strings.ToUpper(r.name[:1])+r.name[1:])
	fmt.Fprint(b, diagnose.Wrap("Answer: "+answer+". Advice: "+string(a.Kind)+".", 100))
	if text := cmp.Or(r.text, f.Answer.ErrorText); text != "" {
		fmt.Fprintf(b, "\n```text\n%s```\n", diagnose.Wrap(text, 100))
	}
	fmt.Fprintf(b, "\n```text\n%s```\n", diagnose.Lines(a.String(), 100))
}
