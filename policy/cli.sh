#!/bin/sh
# Sets up the policies of s3sink. It needs the AWS CLI, sh and awk.
#
# It reads everything before it changes anything. A role or a policy that does not
# exist is created. A policy that has the statements already stays as it is. If an
# existing policy lacks a statement, the script prints that policy with the statement
# added, changes nothing anywhere, and exits with 3. To write the merged policies too:
#
#	APPLY_MERGED=1 sh setup.sh
#
# It removes no statement, and any error of AWS stops it. Run it again after an error:
# what is done already stays as it is.
set -eu
export AWS_PAGER='' # the CLI must not wait in a pager

# lookup ERROR COMMAND... sets found to the output of an aws command, or to '' if AWS
# answers with that error code.
lookup() {
	absent=$1
	shift
	if found=$(aws "$@" 2>/dev/null); then
		return
	fi
	if problem=$(aws "$@" 2>&1 >/dev/null); then
		problem="aws $* failed, and then did not. Run this again."
	fi
	case $problem in
	*"($absent) when calling the "*) found= ;;
	*) stop 1 "$problem" ;;
	esac
}

stop() {
	printf '%s\n' "$2" >&2
	exit "$1"
}

# merge EXISTING OURS prints EXISTING with the statements that it lacks, or nothing.
merge() {
	printf '%s\n%s\n' "$1" "$2" | LC_ALL=C awk "$program"
}

# ensure NAME OURS COMMAND... makes sure that the policy in found has our statements.
# COMMAND writes the policy, which is its last argument.
ensure() {
	name=$1 policy=$2 change=created
	shift 2
	if [ -n "$found" ]; then
		policy=$(merge "$found" "$policy") change=merged
	fi
	if [ -z "$policy" ]; then
		change=unchanged
	elif [ "$pass" = write ]; then
		aws "$@" "$policy" >/dev/null
	elif [ "$change" = merged ] && [ "${APPLY_MERGED-}" != 1 ]; then
		lacking=yes
		printf 'The existing %s lacks our statements. With them it is:\n%s\n\n' "$name" "$policy"
	fi
	if [ "$pass" = write ]; then
		printf '%s: %s\n' "$change" "$name"
	fi
}

# trust_policy ARN NAME PATH POLICY creates the role if there is none.
trust_policy() {
	lookup NoSuchEntity iam get-role --role-name "$2" --query Role.Arn --output text
	if [ -z "$found" ]; then
		ensure "role $1" "$4" iam create-role --role-name "$2" --path "$3" --assume-role-policy-document
		return
	fi
	if [ "$found" != "$1" ]; then
		stop 1 "The role $2 exists as $found, not as $1. Correct the ARN in the configuration, or choose another name."
	fi
	lookup none iam get-role --role-name "$2" --query Role.AssumeRolePolicyDocument --output json
	ensure "trust policy of $1" "$4" iam update-assume-role-policy --role-name "$2" --policy-document
}

# inline_policy KIND NAME POLICY_NAME POLICY is of a role or a user.
inline_policy() {
	lookup NoSuchEntity iam "get-$1-policy" "--$1-name" "$2" --policy-name "$3" --query PolicyDocument --output json
	ensure "policy $3 of $1 $2" "$4" iam "put-$1-policy" "--$1-name" "$2" --policy-name "$3" --policy-document
}

bucket_policy() {
	lookup NoSuchBucketPolicy s3api get-bucket-policy --bucket "$1" --query Policy --output text
	ensure "policy of bucket $1" "$2" s3api put-bucket-policy --bucket "$1" --policy
}

# key_policy ARN REGION POLICY [IAM]: a key policy with the statement IAM leaves
# permissions to the policies of its account, and needs no statement of ours.
key_policy() {
	lookup none kms get-key-policy --key-id "$1" --region "$2" --policy-name default --query Policy --output text
	if [ $# -gt 3 ] && [ -z "$(merge "$found" "$4")" ]; then
		return
	fi
	ensure "policy of key $1" "$3" kms put-key-policy --key-id "$1" --region "$2" --policy-name default --policy
}
