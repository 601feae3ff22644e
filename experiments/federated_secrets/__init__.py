"""Secrets in federated language models: which published claims hold here?"""
