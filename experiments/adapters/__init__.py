"""Adapters of low rank and full fine-tuning: which memorises less at equal utility?"""
