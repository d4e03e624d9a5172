package policy

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

// The constant parts of the script that [Set.CLI] returns.
var (
	//go:embed cli.sh
	cliFunctions string

	//go:embed merge.awk
	cliMerge string
)

// CLI returns a shell script that sets the policies up with the AWS CLI. It needs
// sh, awk and aws.
//
// The script reads every policy before it changes anything. It creates missing
// policies and roles, and does not change a policy that has the statements. If an
// existing policy lacks some, the script prints that policy with the statements
// added, changes nothing, and exits with 3, unless APPLY_MERGED=1 is in its
// environment. It never removes a statement.
//
// If the policies belong to more than one account, each run sets up the policies of
// the account that it runs in. Policies of an unknown role, user or key are
// comments.
func (s Set) CLI() string {
	var sections strings.Builder
	calls, several := 0, s.inSeveralAccounts()
	for _, p := range s {
		fmt.Fprintf(&sections, "\n# %s\n", p.title())
		call := p.call()
		switch here := p.condition(); {
		case call == "" && p.Kind == KeyPolicy:
			fmt.Fprintf(&sections, "# Add to the statements of the key's policy (in the console: KMS, the key, Key users):\n%s", commented(p.Document.String()))
		case call == "":
			fmt.Fprintf(&sections, "# Attach to %s:\n%s", p.Of, commented(p.Document.String()))
		case several && here != "":
			fmt.Fprintf(&sections, "if [ \"$account\" %s ]; then\n%s\nfi\n", here, call)
			calls++
		default:
			sections.WriteString(call + "\n")
			calls++
		}
	}
	if calls == 0 {
		return "#!/bin/sh\n# Nothing here names a role, a user or a key: these policies are for you to attach.\n" + sections.String()
	}
	account := ""
	if several {
		account = "\n# These policies are for more than one account. Run the script in each: it does the parts of that account.\n" +
			"account=$(aws sts get-caller-identity --query Account --output text)\n"
	}
	return cliFunctions + "\nprogram='\n" + cliMerge + "'\n" + account + "\npolicies() {\n" + sections.String() + "\n}\n" + cliPasses
}

// cliPasses is the end of the script.
const cliPasses = `
lacking=
pass=read
policies
if [ -n "$lacking" ]; then
	stop 3 'Nothing was changed. Read the policies above. To write them, run this again with APPLY_MERGED=1 in the environment.'
fi
pass=write
policies
`

// call returns the call of the script's function that sets the policy up, or ""
// if the script cannot.
func (p Policy) call() string {
	subject := parsePrincipal(p.Of)
	var words []string
	switch {
	case p.Kind == TrustPolicy:
		words = []string{"trust_policy", p.Of, subject.name, subject.path}
	case p.Kind == Permissions && subject.kind != "":
		words = []string{"inline_policy", subject.kind, subject.name, p.name()}
	case p.Kind == BucketPolicy:
		words = []string{"bucket_policy", bucketName(p.Of)}
	case p.Kind == KeyPolicy && keyARN.MatchString(p.Of):
		words = []string{"key_policy", p.Of, strings.Split(p.Of, ":")[3]}
	default:
		return ""
	}
	for i := range words {
		words[i] = shellWord(words[i])
	}
	words = append(words, shellQuote(p.Document.String()))
	if p.Kind == KeyPolicy && p.account() == p.principalAccount() {
		words = append(words, shellQuote(leaveToIAM(p.Of).String()))
	}
	return strings.Join(words, " ")
}

// leaveToIAM returns the KMS key policy that delegates permissions to the IAM
// policies of the key's account. Keys have this statement by default.
func leaveToIAM(key string) Document {
	arn := strings.Split(key, ":")
	return allow(Statement{
		Principal: map[string]string{"AWS": "arn:" + arn[1] + ":iam::" + arn[4] + ":root"},
		Action:    []string{"kms:*"},
		Resource:  []string{"*"},
	})
}

// condition returns the test of the current account that must hold for the script
// to set the policy up, or "" if there is no condition.
func (p Policy) condition() string {
	if p.Kind == BucketPolicy {
		return "!= " + p.principalAccount()
	}
	if account := p.account(); account != "" {
		return "= " + account
	}
	return ""
}

var plainWord = regexp.MustCompile(`^[0-9A-Za-z_+=,.@/-]+$`)

// shellWord quotes text for the shell if it needs quotes.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return shellQuote(text)
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func commented(text string) string { return eachLine("# ", text) }
