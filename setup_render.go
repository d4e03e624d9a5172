package s3sink

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

// The parts of the script that [Policies.CLI] returns.
var (
	//go:embed setup_cli.sh
	cliFunctions string

	//go:embed setup_merge.awk
	cliMerge string
)

// CLI returns a shell script that sets the policies up with the AWS CLI. It needs
// sh, awk and aws.
//
// The script reads every policy before it changes anything. It creates missing
// policies and roles, and leaves a policy alone that has the statements. If an existing
// policy lacks some, the script prints that policy with the statements added,
// changes nothing, and exits with 3, unless APPLY_MERGED=1 is in its environment.
// It never removes a statement.
//
// Where the policies belong to more than one account, each run does the parts of
// the account that it runs in. Policies of an unknown role, user or key are
// comments.
func (p Policies) CLI() string {
	var sections strings.Builder
	calls, several := 0, p.inSeveralAccounts()
	for _, d := range p {
		fmt.Fprintf(&sections, "\n# %s\n", d.title())
		call := d.call()
		switch here := d.condition(); {
		case call == "" && d.Kind == KeyPolicy:
			fmt.Fprintf(&sections, "# Add to the statements of the key's policy (in the console: KMS, the key, Key users):\n%s", commented(d.Policy.String()))
		case call == "":
			fmt.Fprintf(&sections, "# Attach to %s:\n%s", d.Of, commented(d.Policy.String()))
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

// call returns the call of a function in the script that sets one document up, or
// "" if the script cannot.
func (d PolicyDocument) call() string {
	who := parsePrincipal(d.Of)
	words := []string{}
	switch {
	case d.Kind == TrustPolicy:
		words = []string{"trust_policy", d.Of, who.name, who.path}
	case d.Kind == PermissionsPolicy && who.kind != "":
		words = []string{"inline_policy", who.kind, who.name, d.name()}
	case d.Kind == BucketPolicy:
		words = []string{"bucket_policy", bucketName(d.Of)}
	case d.Kind == KeyPolicy && keyARN.MatchString(d.Of):
		words = []string{"key_policy", d.Of, strings.Split(d.Of, ":")[3]}
	default:
		return ""
	}
	for i := range words {
		words[i] = shellWord(words[i])
	}
	words = append(words, shellQuote(d.Policy.String()))
	if d.Kind == KeyPolicy && d.account() == d.principalAccount() {
		words = append(words, shellQuote(leaveToIAM(d.Of).String()))
	}
	return strings.Join(words, " ")
}

// leaveToIAM is the policy of a KMS key that leaves permissions to the IAM of its
// account. Keys have this statement by default.
func leaveToIAM(key string) Policy {
	arn := strings.Split(key, ":")
	return allow(Statement{
		Principal: map[string]string{"AWS": "arn:" + arn[1] + ":iam::" + arn[4] + ":root"},
		Action:    []string{"kms:*"},
		Resource:  []string{"*"},
	})
}

// Terraform returns the files of a module that sets the policies up, by name.
// The documents are in a module of their own that needs no provider, so that
// they can be looked at and tested without an account.
//
// Terraform replaces a policy as a whole. A comment at the head of main.tf tells how
// to import and merge the policies that exist, which the module does not see.
func (p Policies) Terraform() map[string]string {
	var documents, main strings.Builder
	documents.WriteString("# The policies of s3sink. This module needs no provider.\n")
	if p.inSeveralAccounts() {
		main.WriteString("# This is for more than one account: apply each part in the account of its ARN.\n\n")
	}
	main.WriteString(terraformReplaces + "terraform {\n  required_providers {\n    aws = {\n      source = \"hashicorp/aws\"\n    }\n  }\n}\n\n" +
		"module \"policies\" {\n  source = \"./policies\"\n}\n")
	labels, roles := unique{}, unique{}
	resources := map[string]string{} // of roles, by ARN
	for _, d := range p {
		label := labels.name(d.label())
		fmt.Fprintf(&documents, "\n# %s\noutput %q {\n  value = <<-EOT\n%s  EOT\n}\n", d.title(), label, indented(heredoc(d.Policy.String())))
		fmt.Fprintf(&main, "\n# %s\n", d.title())
		who := parsePrincipal(d.Of)
		document := "module.policies." + label
		switch {
		case d.Kind == TrustPolicy:
			resources[d.Of] = roles.name(identifier(who.name))
			main.WriteString(importFirst("aws_iam_role", resources[d.Of], who.name))
			fmt.Fprintf(&main, "resource \"aws_iam_role\" %q {\n  name               = %s\n  path               = %s\n  assume_role_policy = %s\n}\n", resources[d.Of], hclQuote(who.name), hclQuote(who.path), document)
		case d.Kind == PermissionsPolicy && who.kind != "":
			subject := hclQuote(who.name)
			if role := resources[d.Of]; role != "" {
				subject = fmt.Sprintf("aws_iam_role.%s.name", role)
			}
			main.WriteString(importFirst("aws_iam_"+who.kind+"_policy", label, who.name+":"+d.name()))
			fmt.Fprintf(&main, "resource \"aws_iam_%s_policy\" %q {\n  name   = %q\n  %-6s = %s\n  policy = %s\n}\n", who.kind, label, d.name(), who.kind, subject, document)
		case d.Kind == BucketPolicy:
			main.WriteString(importFirst("aws_s3_bucket_policy", label, bucketName(d.Of)))
			fmt.Fprintf(&main, "resource \"aws_s3_bucket_policy\" %q {\n  bucket = %q\n  policy = %s\n}\n", label, bucketName(d.Of), document)
		case d.Kind == KeyPolicy:
			fmt.Fprintf(&main, "# Add the statements of %s to the key's policy. A resource\n# \"aws_kms_key_policy\" would replace the policy.\n", document)
		default:
			fmt.Fprintf(&main, "# Attach %s to %s.\n", document, d.Of)
		}
	}
	return map[string]string{"main.tf": main.String(), "policies/outputs.tf": documents.String()}
}

// terraformReplaces begins main.tf.
const terraformReplaces = `# Terraform replaces a policy as a whole. If a role, an inline policy or a bucket
# policy of these names exists, import it before the first apply: "terraform plan"
# then shows the statements that would be removed. Without the import, apply fails
# for a role, and removes them unseen for the others. To keep them, merge:
#
#   data "aws_iam_policy_document" "merged" {
#     source_policy_documents = [file("existing.json"), module.policies.NAME]
#   }
#
# and use data.aws_iam_policy_document.merged.json in place of module.policies.NAME.

`

// importFirst is the comment above a resource that may exist.
func importFirst(kind, label, id string) string {
	return fmt.Sprintf("# If it exists: terraform import %s.%s %s\n", kind, label, shellWord(id))
}

// account is whose the subject of the document is, or "" if that is not known:
// ARNs of buckets do not say.
func (d PolicyDocument) account() string {
	if parts := strings.Split(d.Of, ":"); len(parts) > 4 {
		return parts[4]
	}
	return ""
}

// principalAccount is the account of the role or user that a resource's policy allows.
func (d PolicyDocument) principalAccount() string {
	return strings.Split(d.Policy.Statement[0].Principal["AWS"], ":")[4]
}

// inSeveralAccounts reports whether one set of credentials will not do.
func (p Policies) inSeveralAccounts() bool {
	seen := map[string]bool{}
	for _, d := range p {
		if d.Kind == BucketPolicy { // only for another account than the writer's
			return true
		}
		if account := d.account(); account != "" {
			seen[account] = true
		}
	}
	return len(seen) > 1
}

// condition is how a script compares its account to do the document's part.
func (d PolicyDocument) condition() string {
	if d.Kind == BucketPolicy {
		return "!= " + d.principalAccount()
	}
	if account := d.account(); account != "" {
		return "= " + account
	}
	return ""
}

// name is what the policy is called where it is attached.
func (d PolicyDocument) name() string {
	if d.Policy.Statement[0].Action[0] == "sts:AssumeRole" {
		return "s3sink-assume-role"
	}
	return "s3sink-write"
}

// label names the document in Terraform.
func (d PolicyDocument) label() string {
	kind := map[PolicyKind]string{PermissionsPolicy: "permissions", TrustPolicy: "trust", BucketPolicy: "bucket", KeyPolicy: "key"}[d.Kind]
	who := parsePrincipal(d.Of)
	switch {
	case who.kind != "":
		return identifier(kind + "_" + who.name)
	case d.name() == "s3sink-assume-role":
		return kind + "_caller"
	case d.Kind == PermissionsPolicy:
		return kind + "_writer"
	}
	return kind
}

// principal is an IAM role or user.
type principal struct{ kind, path, name string }

func parsePrincipal(arn string) principal {
	if !principalARN.MatchString(arn) {
		return principal{}
	}
	kind, rest, _ := strings.Cut(strings.Split(arn, ":")[5], "/")
	name := strings.LastIndexByte(rest, '/') + 1
	return principal{kind: kind, path: "/" + rest[:name], name: rest[name:]}
}

func bucketName(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

var notIdentifier = regexp.MustCompile(`[^0-9A-Za-z_]`)

// identifier is a name as Terraform takes it: it begins with no digit.
func identifier(name string) string {
	name = notIdentifier.ReplaceAllString(name, "_")
	if name != "" && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// unique keeps names apart that are the same as identifiers: of two accounts,
// or a role's and a user's.
type unique map[string]bool

func (u unique) name(name string) string {
	free := name
	for n := 2; u[free]; n++ {
		free = fmt.Sprintf("%s_%d", name, n)
	}
	u[free] = true
	return free
}

// hclQuote quotes for Terraform, where ${ and %{ begin templates.
func hclQuote(text string) string { return heredoc(fmt.Sprintf("%q", text)) }

// heredoc keeps Terraform from reading its templates into a policy.
func heredoc(text string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
}

var plainWord = regexp.MustCompile(`^[0-9A-Za-z_+=,.@/-]+$`)

// shellWord quotes what needs it.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return shellQuote(text)
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func commented(text string) string { return eachLine("# ", text) }
func indented(text string) string  { return eachLine("    ", text) }

func eachLine(before, text string) string {
	return before + strings.ReplaceAll(text, "\n", "\n"+before) + "\n"
}
